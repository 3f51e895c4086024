"""How a flow run ends when it does not end with a result."""

from __future__ import annotations

from typing import Any, TypeVar
from uuid import UUID

from prefect import get_client, runtime
from prefect.client.schemas.objects import FlowRun, FlowRunPolicy, State
from prefect.states import Completed, Failed
from sqlalchemy.exc import DBAPIError

from flows.parts.hints import with_hint
from ledger_db.errors import (
    BatchFailed,
    ConfigurationError,
    FirstCloseRefused,
    Hint,
    LedgerError,
    Misused,
    NotApproved,
    NotFound,
    NotMigrated,
    NotYet,
    ReconstructionRefused,
    first_line,
    is_transient,
)

#: Names of completed states. AtWork: another process does it. NothingToDo: it was done before, or nothing is selected.
#: AwaitingApproval: a user must approve what would be done. Rejected: a user decided against it. Found: the stored
#: balances were verified, and some differ.
AT_WORK = "AtWork"
NOTHING_TO_DO = "NothingToDo"
AWAITING_APPROVAL = "AwaitingApproval"
REJECTED = "Rejected"
FOUND = "Found"
#: Name of a failed state: what a person asked for cannot be done as asked, and nothing was done. Nobody else is told.
REFUSED = "Refused"

#: What fails for good unless it is transient: a fact of the ledger, or an error of the database.
LEDGER_ERRORS = (LedgerError, DBAPIError)

#: What is wrong with how a job was asked for, not with the ledger,
OF_THE_ASKER = (FirstCloseRefused, Misused, NotFound, NotYet, ReconstructionRefused)
#: but for what every run of this job would meet.
NOT_OF_THE_ASKER = (ConfigurationError, NotApproved, NotMigrated)

Result = TypeVar("Result")


def rename_run(name: str) -> None:
    """Rename this flow run, once it is known what it is about."""
    with get_client(sync_client=True) as client:
        client.update_flow_run(UUID(runtime.flow_run.id), name=name)


def at_work(message: str) -> State[Any]:
    """Complete without doing anything: another process is at work on the same."""
    return Completed(name=AT_WORK, message=message)


def nothing_to_do(message: str) -> State[Any]:
    """Complete without doing anything: it was done before."""
    return Completed(name=NOTHING_TO_DO, message=message)


def stopped_by(error: Exception) -> State[Any]:
    """End the flow run that an exception stopped. A fact of the ledger fails it for good.

    Raises:
        the exception itself, when it is transient or not of the ledger: retries of the flow run act on it.
    """
    if is_transient(error) or not isinstance(error, LEDGER_ERRORS):
        raise error
    return failed_for_good(error)


def failed_for_good(error: Exception) -> State[Any]:
    """Fail without a retry. The message is the fact and its hint in words; the state's data is the exception.

    Prefect retries a returned Failed state like a raised exception. So this takes the retries off the flow run.
    """
    with get_client(sync_client=True) as client:
        flow_run = client.read_flow_run(UUID(runtime.flow_run.id))
        client.update_flow_run(flow_run.id, empirical_policy=FlowRunPolicy(retries=0, retry_delay=0))
    message = with_hint(first_line(error), _hint_of(error))
    if isinstance(error, OF_THE_ASKER) and not isinstance(error, NOT_OF_THE_ASKER) and _was_asked_for(flow_run):
        return Failed(name=REFUSED, message=message, data=error)
    return Failed(message=message, data=error)


def _was_asked_for(flow_run: FlowRun) -> bool:
    """Whether somebody asked for this run with parameters of their own, and sees what became of it.

    Neither a schedule nor an automation did, nor another scheduler, which starts the deployment as it is.
    """
    if flow_run.auto_scheduled or flow_run.created_by is not None or flow_run.parent_task_run_id is not None:
        return False
    if flow_run.deployment_id is None:
        return True
    with get_client(sync_client=True) as client:
        deployment = client.read_deployment(flow_run.deployment_id)
    return flow_run.parameters != deployment.parameters


def result_of(state: State[Any], kind: type[Result], consequence: str) -> Result:
    """The result of a flow run that this one called.

    Raises:
        what it failed with, when that is transient: retries of this flow run act on it.
        BatchFailed: it has no such result. The message is the consequence for this flow run and the reason.
    """
    result = state.result(raise_on_failure=False)
    if state.is_completed() and isinstance(result, kind):
        return result
    error = result if isinstance(result, BaseException) else None
    if error is not None and is_transient(error):
        raise error
    reason = first_line(error) if isinstance(error, LEDGER_ERRORS) else state.message
    raise BatchFailed(f"{consequence}: {reason}", transient=False, hint=_hint_of(error)) from error


def _hint_of(error: BaseException | None) -> Hint | None:
    return error.hint if isinstance(error, LedgerError) else None
