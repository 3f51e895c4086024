"""Snapshot every balance once for one business date, and certify the figures.

Safe to run again, twice at once, and to kill anywhere: a second call resumes the same run with the same cut and writes
only what is missing.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date
from typing import Any, Literal

from prefect import flow, get_run_logger, runtime
from prefect.client.schemas.objects import State

from flows import events, reports
from flows.parts import outcomes
from flows.parts.batches import map_batches
from flows.parts.clock import as_of, dated_name
from flows.parts.options import UNRETRIED_FLOW, BatchSize, batch_size_or_setting
from flows.parts.progress import Job
from ledger_db.close.runs import Run
from ledger_db.close.snapshots import PLAN_ROUNDS
from ledger_db.errors import BatchFailed, RunAtWork, first_line
from tasks import close as closing
from tasks.close import Certificate

REASONS_NAMED = 5


@dataclass(frozen=True)
class SnapshotResult:
    """A certified run, how many rows this flow run wrote, and the time it took in all and by phase."""

    certificate: Certificate
    written: int
    duration_ms: int
    phases_ms: dict[str, int]


def _run_name() -> str:
    parameters: dict[str, Any] = runtime.flow_run.parameters
    return _dated(parameters.get("kind", "close"), parameters.get("business_date"))


def _dated(kind: str, business_date: date | None) -> str:
    name = "snapshot-balances" if kind == "close" else f"snapshot-balances-{kind}"
    return dated_name(name, business_date, in_progress=kind == "interim")


@flow(name="snapshot-balances", flow_run_name=_run_name, **UNRETRIED_FLOW)
def snapshot_balances(
    business_date: date | None = None,
    kind: Literal["close", "interim"] = "close",
    batch_size: BatchSize = None,
) -> SnapshotResult | State[Any]:
    """Write one snapshot per balance for a business date and certify them.

    Args:
        business_date: The day to snapshot. Empty: the next day in turn (close) or today (interim).
        kind: close is the official end of day, once per day and in order; interim is "as of now", any time.
        batch_size: How many balances one database transaction writes, from 1 to 1,000,000. Empty: LEDGER_BATCH_SIZE.
    """
    job = Job(
        "balance snapshots",
        {"operation": "balance_snapshots", "batch_size": batch_size, "kind": kind, "business_date": business_date},
    )
    try:
        batch_size = batch_size_or_setting(batch_size)
        job = job.about(batch_size=batch_size)
        run = closing.open_run(kind, business_date, as_of())
        if run is None:
            return outcomes.nothing_to_do("every balance has its interim snapshot of this date already")
        job = job.about(run_id=run.run_id, business_date=run.business_date)
        if business_date is None:
            outcomes.rename_run(_dated(kind, run.business_date))
        with closing.hold_run(run):
            run = closing.reload_run(run.run_id)
            if run.certified:
                return outcomes.nothing_to_do(
                    f"{run.name} is certified already: {run.snapshot_count} snapshots, {run.checksum}"
                )
            return _write_and_certify(run, batch_size, job)
    except RunAtWork as busy:
        return outcomes.at_work(str(busy))
    except Exception as error:
        written = error.written if isinstance(error, BatchFailed) else 0
        job.failed(total_snapshots=written, error=first_line(error), duration_ms=job.duration_ms)
        return outcomes.stopped_by(error)


def _write_and_certify(run: Run, batch_size: int, job: Job) -> SnapshotResult:
    job.started()
    with job.phase("count"):
        _count(run)
    written = _write(run, batch_size, job)
    if run.base_run_id is None:
        with job.phase("compare"):
            closing.compare_new_chain(run.run_id)
    with job.phase("certify"):
        certificate = closing.certify_run(run.run_id)
    result = SnapshotResult(certificate, written, job.duration_ms, job.phases_ms)
    _report(result, job)
    if run.kind == "close":
        _clear_up()
    return result


def _clear_up() -> None:
    """Remove what was counted in advance. What fails changes nothing of the close; the next preparation does it."""
    state: State[Any] = closing.abandon_preparations(return_state=True)
    if not state.is_completed():
        get_run_logger().warning("what was counted in advance is not removed yet: %s", state.message)


def _count(run: Run) -> None:
    """Count the run's rows on the workers, then release the holds that can be; fail when a piece did."""
    for plan, what in ((closing.plan_pieces, "rows"), (closing.plan_hold_pieces, "holds")):
        pieces = plan(run.run_id)
        if pieces:
            mapped = map_batches(
                closing.count_pieces, run.run_id, pieces,
                progress_key=reports.artifact_key("progress", what, run.kind, run.business_date),
                description=f"{run.name}: {what} in {len(pieces)} pieces",
            )  # fmt: skip
            mapped.require_all(
                "the other pieces are kept; run it again to count the missing ones", reasons=REASONS_NAMED
            )
    closing.finish_counting(run.run_id)


def _write(run: Run, batch_size: int, job: Job) -> int:
    """Write what is missing, on the workers; fail when a batch did. Certification proves that nothing is missing."""
    written = 0
    for _ in range(PLAN_ROUNDS):
        with job.phase("plan"):
            ranges = closing.plan_batches(run.run_id, batch_size)
        if not ranges:
            break
        with job.phase("write"):
            balance_count = sum(keys.balance_count for keys in ranges)
            mapped = map_batches(
                closing.write_snapshots, run.run_id, ranges,
                progress_key=reports.artifact_key("progress", run.kind, run.business_date),
                description=f"{run.name}: {balance_count} snapshots in {len(ranges)} batches",
            )  # fmt: skip
            written_now = sum(mapped.results)
            mapped.require_all(
                "the others' snapshots are kept; run it again to write the missing ones",
                written=written_now, reasons=REASONS_NAMED,
            )  # fmt: skip
            written += written_now
    return written


def _report(result: SnapshotResult, job: Job) -> None:
    """One log line, the tables, one event."""
    certificate, run = result.certificate, result.certificate.run
    job.completed(
        total_snapshots=run.snapshot_count,
        written=result.written,
        duration_ms=result.duration_ms,
        snapshots_per_second=round(result.written / max(result.duration_ms / 1000, 0.001)),
        phases_ms=result.phases_ms,
        exceptions=certificate.exception_counts,
        late_postings=sum(late.posting_count for late in certificate.late_totals),
        checksum=run.checksum,
    )
    reports.report_totals(certificate)
    if certificate.late_totals:
        reports.report_late_arrivals([certificate], reports.artifact_key("late-arrivals", run.kind, run.business_date))
    events.announce_run(
        "run.certified", run, written=result.written, duration_ms=result.duration_ms,
        exceptions=certificate.exception_counts,
    )  # fmt: skip
