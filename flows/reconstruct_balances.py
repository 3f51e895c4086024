"""Recalculate balances from their postings, and correct the stored rows that were approved to be corrected.

Safe to run again, twice at once, and to kill anywhere: each correction is one transaction that first looks whether it
is still needed, and an interrupted flow run goes on with what was approved when it is retried. While it waits for a
decision it is suspended and holds nothing; when it is resumed it recalculates everything, and a decision about other
figures than there are then does not count.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any, Literal

from prefect import flow, get_run_logger, runtime
from prefect.client.schemas.objects import State
from prefect.flow_runs import suspend_flow_run
from prefect.input import RunInput
from prefect.states import Completed
from prefect.task_runners import ThreadPoolTaskRunner
from pydantic import Field, ValidationError
from sqlalchemy.exc import DBAPIError

from flows import reports
from flows.parts import batches, outcomes
from flows.parts.batches import milliseconds_since
from ledger_db.correction.reconstructions import Reconstruction
from ledger_db.errors import BatchFailed, LedgerError, first_line, is_transient
from ledger_db.evidence.approvals import Approval
from ledger_db.settings import get_settings
from tasks import correction as correcting
from tasks.correction import Reconstructed
from tasks.logs import job_line

OPERATION = "reconstruct_balances"


class Decision(RunInput):
    """The form in which somebody decides about proposed corrections."""

    decision: Literal["approve", "reject"] = Field(description="Approve exactly these figures, or reject them.")
    decided_by: str = Field(min_length=1, description="Your name. It must not be the proposer's.")
    remark: str = Field("", description="Why, for the audit log.")


@dataclass(frozen=True)
class Waiting:
    """What a proposal that needs an approval, and cannot wait for it, leaves behind."""

    report: Reconstructed


def _run_name() -> str:
    parameters = runtime.flow_run.parameters
    return f"reconstruct-balances-{parameters.get('select', 'given')}-{parameters.get('mode', 'report')}"


@flow(
    name="reconstruct-balances",
    flow_run_name=_run_name,
    task_runner=ThreadPoolTaskRunner(max_workers=batches.workers()),  # type: ignore[arg-type]
    retries=0,
    persist_result=False,
)
def reconstruct_balances(
    balance_ids: list[str] | None = None,
    select: Literal["given", "discrepancies", "requested"] = "given",
    mode: Literal["report", "apply"] = "report",
    reason: str = "",
    proposed_by: str = "",
) -> Reconstructed | State[Any]:
    """Reconstruct balances: say what was and what is, and in mode apply correct the stored rows.

    Corrections above the configured limits, or without a known cause, wait for somebody else's approval: the run is
    then suspended, and its Resume form asks for the decision.

    Args:
        balance_ids: The balances, when select is given.
        select: given, those with open discrepancies, or requested by BLNK_RUN_RECONCILIATION in their meta_data.
        mode: report changes nothing; apply corrects what may be corrected.
        reason: Why, for the audit log. Required to apply, unless the balances' owners requested it.
        proposed_by: Who proposes it. Somebody else must approve.
    """
    started = time.monotonic()
    flow_run_id = str(runtime.flow_run.id)
    try:
        resumed = correcting.find_resumable(flow_run_id)
        if resumed is not None:
            return _apply(correcting.read(resumed.reconstruction_id), started)
        opened, chosen = correcting.open_reconstruction(
            balance_ids, select, mode=mode, reason=reason, proposed_by=proposed_by, flow_run_id=flow_run_id
        )
        report = _propose(opened, chosen)
        if mode == "report" or not (report.proposed or select == "requested"):
            return _told(_ended(report), started)
        approval = None
        if report.reconstruction.approval_reasons:
            approval = correcting.find_approval(report.reconstruction)
            if approval is None:
                waiting = outcomes.first_suspended(correcting.find_others_proposing(report.reconstruction))
                if waiting is not None or not _can_wait():
                    return _awaiting(report, waiting)
            approval = approval or _decided(report)
            if approval.decision == "rejected":
                return _rejected(report, approval)
        correcting.begin_applying(opened.reconstruction_id, None if approval is None else approval.approval_id)
        return _apply(report, started)
    except (LedgerError, DBAPIError) as error:
        get_run_logger().error(
            job_line("reconstruction failed", operation=OPERATION, status="failed", error=first_line(error))
        )
        if is_transient(error):
            raise
        return outcomes.failed_for_good(first_line(error))


def _propose(opened: Reconstruction, chosen: list[str]) -> Reconstructed:
    get_run_logger().info(
        job_line(
            "reconstruction started", operation=OPERATION, reconstruction_id=opened.reconstruction_id,
            mode=opened.mode, selection=opened.selection, total_balances=len(chosen), status="started",
        )
    )  # fmt: skip
    if chosen:
        _, failures = batches.map_ranges(
            correcting.recalculate_balances, opened.reconstruction_id, chosen,
            progress_key=reports.artifact_key("progress", "recalculate", opened.selection),
            description=f"{opened.name}: {len(chosen)} balances recalculated",
        )  # fmt: skip
        _require_all(failures, "nothing is corrected")
    return correcting.seal(opened.reconstruction_id)


def _apply(report: Reconstructed, started: float) -> Reconstructed | State[Any]:
    """Correct what is still to be corrected, and answer what was requested."""
    wanted = {"correct", "agrees"} if report.reconstruction.selection == "requested" else {"correct"}
    balance_ids = [result.balance_id for result in report.results if result.verdict in wanted]
    if balance_ids:
        _, failures = batches.map_ranges(
            correcting.correct_balances, report.reconstruction.reconstruction_id, balance_ids,
            progress_key=reports.artifact_key("progress", "correct", report.reconstruction.selection),
            description=f"{report.reconstruction.name}: {len(balance_ids)} balances to correct",
        )  # fmt: skip
        _require_all(failures, "what was corrected stays, retry this run for the rest")
    return _told(_ended(report), started)


def _ended(report: Reconstructed) -> Reconstructed:
    """A report stays open to an approval of its figures; everything else is over."""
    if report.reconstruction.mode == "report" and report.proposed:
        return report
    return correcting.end_reconstruction(report.reconstruction.reconstruction_id)


def _require_all(failures: list[BaseException], consequence: str) -> None:
    if failures:
        raise BatchFailed(
            f"{len(failures)} tasks failed, {consequence}. {first_line(failures[0])}",
            transient=all(is_transient(failure) for failure in failures),
        )


# Approval -------------------------------------------------------------------------------------------------------------


def _can_wait() -> bool:
    """Whether this run can be suspended: the orchestrator must be able to start it again."""
    return runtime.deployment.id is not None and runtime.flow_run.parent_flow_run_id is None


def _decided(report: Reconstructed) -> Approval:
    """Suspend until somebody decides about these figures; ask again when whoever did must not.

    The key is of the figures: a run that is resumed after they changed asks about the new ones. It counts the
    decisions: each form is good for one, so that a run that is retried asks anew.
    """
    proposal = report.reconstruction
    refused = ""
    while True:
        key = f"approve-{str(proposal.figures_hash)[:16]}-{correcting.count_decisions(proposal)}"
        if not outcomes.suspended_before(key):
            _say_awaiting(report)
        form = Decision.with_initial_data(description=reports.proposal_markdown(report, refused=refused))
        try:
            given = suspend_flow_run(wait_for_input=form, timeout=get_settings().approval_hours * 3600, key=key)
        except ValidationError:  # retried after nobody decided in time, or forced to go on without the form
            given = Decision.model_construct(decision="approve", decided_by="")
        approval = correcting.decide(
            proposal, "approved" if given.decision == "approve" else "rejected", given.decided_by, given.remark, "form"
        )
        if approval.decision != "refused":
            return approval
        refused = approval.remark
        get_run_logger().warning("approval refused: %s", refused)


def _say_awaiting(report: Reconstructed) -> None:
    proposal = report.reconstruction
    get_run_logger().info(
        job_line(
            "reconstruction awaits approval", operation=OPERATION, reconstruction_id=proposal.reconstruction_id,
            status="awaiting_approval", figures_hash=proposal.figures_hash, reasons=proposal.approval_reasons,
        )
    )  # fmt: skip
    reports.report_reconstruction(report)
    reports.announce_reconstruction(report, "awaiting-approval")


def _awaiting(report: Reconstructed, waiting: str | None) -> State[Any]:
    """End without a decision: this run cannot wait for one, or another one waits for it already."""
    proposal = report.reconstruction
    if waiting is None:
        _say_awaiting(report)
    return Completed(
        name=outcomes.AWAITING_APPROVAL,
        message=f"{proposal.name} needs an approval: {'; '.join(proposal.approval_reasons or [])}. Figures "
        f"{str(proposal.figures_hash)[:16]}{f'; the flow run {waiting} asks for it already' if waiting else ''}",
        data=Waiting(report),
    )


def _rejected(report: Reconstructed, approval: Approval) -> State[Any]:
    reports.announce_reconstruction(report, "rejected")
    remark = f": {approval.remark}" if approval.remark else ""
    return Completed(
        name=outcomes.REJECTED,
        message=f"{report.reconstruction.name} was rejected by {approval.decided_by}{remark}; nothing is corrected",
    )


# Telling --------------------------------------------------------------------------------------------------------------


def _told(report: Reconstructed, started: float) -> Reconstructed | State[Any]:
    """One summary line, one table, one event; the message says what came of it."""
    reconstruction = report.reconstruction
    verdicts = {
        verdict: sum(result.verdict == verdict for result in report.results)
        for verdict in ("agrees", "correct", "corrected", "refused", "stale")
    }
    counted = {verdict: count for verdict, count in verdicts.items() if count}
    get_run_logger().info(
        job_line(
            "reconstruction completed", operation=OPERATION, reconstruction_id=reconstruction.reconstruction_id,
            mode=reconstruction.mode, selection=reconstruction.selection, status="completed",
            total_balances=len(report.results), **counted, figures_hash=reconstruction.figures_hash,
            duration_ms=milliseconds_since(started),
        )
    )  # fmt: skip
    reports.report_reconstruction(report)
    reports.announce_reconstruction(report, "corrected" if report.corrections else "reported")
    return Completed(message=summary_of(report), data=report)


def summary_of(report: Reconstructed) -> str:
    """What came of a reconstruction, in one line."""
    counts = {
        "right": "agrees", "to correct": "correct", "corrected": "corrected", "refused": "refused", "stale": "stale",
    }  # fmt: skip
    said = [
        f"{count} {word}"
        for word, verdict in counts.items()
        if (count := sum(result.verdict == verdict for result in report.results))
    ]
    return f"{report.reconstruction.name}: {', '.join(said) or 'no balance to reconstruct'}"
