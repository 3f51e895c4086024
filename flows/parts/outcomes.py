"""How a flow run ends when it does not end with a result."""

from __future__ import annotations

from typing import Any
from uuid import UUID

from prefect import get_client, runtime
from prefect.client.schemas.objects import FlowRunPolicy, State
from prefect.exceptions import ObjectNotFound
from prefect.states import Completed, Failed

#: Names of completed states: somebody else is at it; it is done already, or there is nothing to do; somebody must
#: approve what would be done; somebody said no to it.
AT_WORK = "AtWork"
NOTHING_TO_DO = "NothingToDo"
AWAITING_APPROVAL = "AwaitingApproval"
REJECTED = "Rejected"


def name_run(name: str) -> None:
    """Name this flow run anew, once it is known what it is about."""
    with get_client(sync_client=True) as client:
        client.update_flow_run(UUID(runtime.flow_run.id), name=name)


def suspended_before(key: str) -> bool:
    """Whether this flow run was suspended under this key before, so that an answer to it is there."""
    with get_client(sync_client=True) as client:
        policy = client.read_flow_run(UUID(runtime.flow_run.id)).empirical_policy
    return key in (policy.pause_keys or set())


def first_suspended(flow_run_ids: list[str]) -> str | None:
    """The name of the first of these flow runs that waits for somebody's input."""
    with get_client(sync_client=True) as client:
        for flow_run_id in flow_run_ids:
            try:
                flow_run = client.read_flow_run(UUID(flow_run_id))
            except ObjectNotFound:  # of another server, or deleted
                continue
            if flow_run.state is not None and flow_run.state.is_paused():
                return flow_run.name
    return None


def at_work(message: str) -> State[Any]:
    """Another process is at work on the same run: nothing is wrong, and nothing is done here."""
    return Completed(name=AT_WORK, message=message)


def nothing_to_do(message: str) -> State[Any]:
    """What was asked for is there already."""
    return Completed(name=NOTHING_TO_DO, message=message)


def failed_for_good(message: str) -> State[Any]:
    """Fail with a fact of the ledger: retries, which may be set on the flow run, are taken off it.

    A Failed state that a flow returns is otherwise retried like an exception that it raises.
    """
    with get_client(sync_client=True) as client:
        client.update_flow_run(UUID(runtime.flow_run.id), empirical_policy=FlowRunPolicy(retries=0, retry_delay=0))
    return Failed(message=message)
