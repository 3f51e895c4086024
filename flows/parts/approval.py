"""The decision of a second user about proposed corrections: find one, or ask for one with a form and wait.

A flow run that waits is suspended and holds nothing. When it is resumed it starts again from the top, with the figures
as they are then. A decision about other figures does not count, and each form is good for one decision.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal
from uuid import UUID

from prefect import get_client, get_run_logger, runtime
from prefect.client.schemas.objects import State
from prefect.exceptions import ObjectNotFound
from prefect.flow_runs import suspend_flow_run
from prefect.input import RunInput
from prefect.states import Completed
from pydantic import Field, ValidationError

from flows import events, reports
from flows.parts import outcomes, progress
from ledger_db.correction.driver import ReconstructionReport
from ledger_db.errors import ApprovalRefused
from ledger_db.evidence.approvals import Approval
from ledger_db.settings import get_settings
from tasks import correction as correcting

#: Refused decisions in one execution of the flow. Each form that nobody has answered suspends the run and so ends the
#: execution: more than one refusal means that forms come back answered.
REFUSALS = 10


_IN_THE_FORM = (
    "Resume of the flow run shows the figures and asks for the decision, within {} hours; after them it fails, and "
    "nothing is corrected"
)
_ON_THE_COMMAND_LINE = "This run does not wait: it is approved and corrected on the command line, by the hash {}"


class Decision(RunInput):
    """The form in which a user decides about proposed corrections."""

    decision: Literal["approve", "reject"] = Field(description="Approve exactly these figures, or reject them.")
    decided_by: str = Field(min_length=1, description="Your name. It must not be the proposer's.")
    remark: str = Field("", description="Why, for the audit log.")


@dataclass(frozen=True)
class ProposalWaiting:
    """The result of a flow run that ended without the approval that its proposal needs."""

    report: ReconstructionReport


def await_decision(report: ReconstructionReport, operation: str) -> Approval | State[Any]:
    """The approval of exactly these figures that exists already, or the decision that this run suspends itself for.

    A state instead of a decision ends the run, which cannot wait, or need not because another run does; or the
    decision was a rejection.
    """
    approval = correcting.find_approval(report.reconstruction)
    if approval is None:
        asking = _first_suspended(correcting.find_others_proposing(report.reconstruction))
        if asking is not None:
            return _waiting(report, f"; the flow run {asking} asks for it already")
        if not _can_be_suspended():
            _announce_waiting(report, operation, _ON_THE_COMMAND_LINE.format(report.reconstruction.figures_hash))
            return _waiting(report, "")
        approval = _ask(report, operation)
    return _rejected(report, approval) if approval.decision == "rejected" else approval


def _ask(report: ReconstructionReport, operation: str) -> Approval:
    """Suspend the run until a user decides; ask again when the decision is refused, as one by the proposer is.

    The key contains the figures: a run that is resumed after they changed asks about the new ones. It also counts the
    decisions, so that a run that is retried after one asks again.

    Raises:
        ApprovalRefused: too many decisions in a row were refused.
    """
    proposal = report.reconstruction
    refused = ""
    for _ in range(REFUSALS):
        key = f"approve-{str(proposal.figures_hash)[:16]}-{correcting.count_decisions(proposal)}"
        if not _was_suspended(key):
            _announce_waiting(report, operation, _IN_THE_FORM.format(get_settings().approval_hours))
        given = _suspend(
            Decision.with_initial_data(description=reports.proposal_markdown(report, refused=refused)), key
        )
        decision: Literal["approved", "rejected"] = "approved" if given.decision == "approve" else "rejected"
        approval = correcting.decide(proposal, decision, given.decided_by, given.remark, "form")
        if approval.decision != "refused":
            return approval
        refused = approval.remark
        get_run_logger().warning("approval refused: %s", refused)
    raise ApprovalRefused(f"{proposal.name}: {REFUSALS} decisions in a row were refused, the last one: {refused}")


def _suspend(form: type[Decision], key: str) -> Decision:
    """The answer to a form. Where there is none yet, this raises Prefect's signal that suspends the run."""
    try:
        return suspend_flow_run(wait_for_input=form, timeout=get_settings().approval_hours * 3600, key=key)
    except ValidationError:  # retried after nobody decided in time, or resumed by force without the form
        return Decision.model_construct(decision="approve", decided_by="")  # is refused: nobody signed it


def _was_suspended(key: str) -> bool:
    """Whether this flow run was suspended under this key before, so that there is an answer to it."""
    with get_client(sync_client=True) as client:
        policy = client.read_flow_run(UUID(runtime.flow_run.id)).empirical_policy
    return key in (policy.pause_keys or set())


def _can_be_suspended() -> bool:
    """Whether the orchestrator can start this run again: only a deployment's run, and not as part of another."""
    return runtime.deployment.id is not None and runtime.flow_run.parent_flow_run_id is None


def _first_suspended(flow_run_ids: list[str]) -> str | None:
    """The name of the first of these flow runs that waits for a user's input."""
    with get_client(sync_client=True) as client:
        for flow_run_id in flow_run_ids:
            try:
                flow_run = client.read_flow_run(UUID(flow_run_id))
            except ObjectNotFound:  # of another server, or deleted
                continue
            if flow_run.state is not None and flow_run.state.is_paused():
                return flow_run.name
    return None


def _announce_waiting(report: ReconstructionReport, operation: str, how: str) -> None:
    """One log line, one table, one event: a decision is needed. ``how``: it is made."""
    proposal = report.reconstruction
    progress.report(
        "reconstruction awaits approval", operation=operation, reconstruction_id=proposal.reconstruction_id,
        status="awaiting_approval", figures_hash=proposal.figures_hash, reasons=proposal.approval_reasons,
    )  # fmt: skip
    reports.report_reconstruction(report)
    events.announce_reconstruction(report, "awaiting-approval", how=how)


def _waiting(report: ReconstructionReport, remark: str) -> State[Any]:
    proposal = report.reconstruction
    return Completed(
        name=outcomes.AWAITING_APPROVAL,
        message=f"{proposal.name} needs an approval: {'; '.join(proposal.approval_reasons or [])}. Figures "
        f"{str(proposal.figures_hash)[:16]}{remark}",
        data=ProposalWaiting(report),
    )


def _rejected(report: ReconstructionReport, approval: Approval) -> State[Any]:
    events.announce_reconstruction(report, "rejected")
    remark = f": {approval.remark}" if approval.remark else ""
    return Completed(
        name=outcomes.REJECTED,
        message=f"{report.reconstruction.name} was rejected by {approval.decided_by}{remark}; nothing is corrected",
    )
