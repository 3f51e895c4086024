"""Recalculate balances from their postings, and correct the stored rows that were approved to be corrected.

Safe to run again, twice at once, and to kill anywhere: each correction is one transaction that first checks whether it
is still needed, and an interrupted flow run goes on with what was approved when it is retried.
"""

from __future__ import annotations

from typing import Any, Literal

from prefect import flow, runtime
from prefect.client.schemas.objects import State
from prefect.states import Completed

from flows import events, reports
from flows.parts import outcomes
from flows.parts.approval import await_decision
from flows.parts.batches import map_batches
from flows.parts.options import UNRETRIED_FLOW
from flows.parts.progress import Job
from ledger_db.correction.driver import ReconstructionReport
from ledger_db.correction.reconstructions import Reconstruction
from ledger_db.errors import NothingSelected, first_line
from tasks import correction as correcting

OPERATION = "reconstruct_balances"
#: The words of a summary for each verdict of a balance.
VERDICTS = {
    "agrees": "right",
    "correct": "to correct",
    "corrected": "corrected",
    "refused": "refused",
    "stale": "stale",
}


def _run_name() -> str:
    parameters = runtime.flow_run.parameters
    return f"reconstruct-balances-{parameters.get('select', 'given')}-{parameters.get('mode', 'report')}"


@flow(name="reconstruct-balances", flow_run_name=_run_name, **UNRETRIED_FLOW)
def reconstruct_balances(
    balance_ids: list[str] | None = None,
    select: Literal["given", "discrepancies", "requested"] = "given",
    mode: Literal["report", "apply"] = "report",
    reason: str = "",
    proposed_by: str = "",
) -> ReconstructionReport | State[Any]:
    """Reconstruct balances: report what was and what is, and in mode apply correct the stored rows.

    Corrections above the configured limits, or without a known cause, wait for another user's approval: the run is
    then suspended, and its Resume form asks for the decision.

    Args:
        balance_ids: The balances, when select is given.
        select: given, those with open discrepancies, or requested by BLNK_RUN_RECONCILIATION in their meta_data.
        mode: report changes nothing; apply corrects what may be corrected.
        reason: Why, for the audit log. Required to apply, unless the balances' owners requested it.
        proposed_by: Who proposes it. Somebody else must approve.
    """
    job = Job("reconstruction", {"operation": OPERATION})
    flow_run_id = str(runtime.flow_run.id)
    try:
        interrupted = correcting.find_resumable(flow_run_id)
        if interrupted is not None:
            return _apply(correcting.read_report(interrupted.reconstruction_id), job)
        reconstruction, chosen = correcting.open_reconstruction(
            balance_ids, select, mode=mode, reason=reason, proposed_by=proposed_by, flow_run_id=flow_run_id
        )
        report = _recalculate(reconstruction, chosen, job)
        if mode == "report" or not (report.proposed or select == "requested"):
            return _report(_end(report), job)
        approval_id = None
        if report.reconstruction.approval_reasons:
            approval = await_decision(report, OPERATION)
            if isinstance(approval, State):
                return approval
            approval_id = approval.approval_id
        correcting.begin_applying(reconstruction.reconstruction_id, approval_id)
        return _apply(report, job)
    except NothingSelected as nothing:  # so that a schedule may ask each night
        return outcomes.nothing_to_do(str(nothing))
    except outcomes.LEDGER_ERRORS as error:
        job.failed(error=first_line(error))
        return outcomes.stopped_by(error)


def _recalculate(reconstruction: Reconstruction, chosen: list[str], job: Job) -> ReconstructionReport:
    """Recalculate the chosen balances and seal the figures."""
    _about(reconstruction, job).started(total_balances=len(chosen))
    map_batches(
        correcting.recalculate_balances, reconstruction.reconstruction_id, chosen,
        progress_key=reports.artifact_key("progress", "recalculate", reconstruction.selection),
        description=f"{reconstruction.name}: {len(chosen)} balances recalculated",
    ).require_all("nothing is corrected")  # fmt: skip
    return correcting.seal(reconstruction.reconstruction_id)


def _apply(report: ReconstructionReport, job: Job) -> State[Any]:
    """Correct what is still to be corrected, and answer the balances that requested it."""
    reconstruction = report.reconstruction
    verdicts = {"correct", "agrees"} if reconstruction.selection == "requested" else {"correct"}
    balance_ids = [result.balance_id for result in report.results if result.verdict in verdicts]
    if balance_ids:
        map_batches(
            correcting.correct_balances, reconstruction.reconstruction_id, balance_ids,
            progress_key=reports.artifact_key("progress", "correct", reconstruction.selection),
            description=f"{reconstruction.name}: {len(balance_ids)} balances to correct",
        ).require_all("what was corrected stays, retry this run for the rest")  # fmt: skip
    return _report(_end(report), job)


def _end(report: ReconstructionReport) -> ReconstructionReport:
    """End the reconstruction, but for a report with proposals: it stays open to an approval of its figures."""
    if report.reconstruction.mode == "report" and report.proposed:
        return report
    return correcting.end_reconstruction(report.reconstruction.reconstruction_id)


def _report(report: ReconstructionReport, job: Job) -> State[Any]:
    """One log line, one table, one event; the state's message has the counts."""
    reconstruction = report.reconstruction
    _about(reconstruction, job).completed(
        total_balances=len(report.results), **_counts(report), figures_hash=reconstruction.figures_hash,
        duration_ms=job.duration_ms,
    )  # fmt: skip
    reports.report_reconstruction(report)
    events.announce_reconstruction(report, "corrected" if report.corrections else "reported")
    counts = ", ".join(f"{count} {VERDICTS[verdict]}" for verdict, count in _counts(report).items())
    return Completed(message=f"{reconstruction.name}: {counts or 'no balance to reconstruct'}", data=report)


def _about(reconstruction: Reconstruction, job: Job) -> Job:
    return job.about(
        reconstruction_id=reconstruction.reconstruction_id, mode=reconstruction.mode, selection=reconstruction.selection
    )


def _counts(report: ReconstructionReport) -> dict[str, int]:
    """How many balances have each verdict, without those that none has."""
    verdicts = [result.verdict for result in report.results]
    return {verdict: count for verdict in VERDICTS if (count := sum(each == verdict for each in verdicts))}
