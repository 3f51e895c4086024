"""Snapshot every balance once for one business date, and certify the figures.

Safe to run again, twice at once, and to kill anywhere: a second call resumes the same run with the same cut and writes
only what is missing.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from datetime import date
from typing import Annotated, Any, Literal

from prefect import flow, get_run_logger, runtime
from prefect.client.schemas.objects import State
from prefect.task_runners import ThreadPoolTaskRunner
from pydantic import Field
from sqlalchemy.exc import DBAPIError

from flows import reports
from flows.parts import batches, outcomes
from flows.parts.batches import milliseconds_since, timed
from flows.parts.clock import as_of, dated_name
from ledger_db.close.runs import Run
from ledger_db.core.key_ranges import KeyRange
from ledger_db.errors import BatchFailed, LedgerError, first_line, is_transient
from tasks import close as closing
from tasks.logs import job_line

OPERATION = "balance_snapshots"
PLAN_ROUNDS = 3  # a balance made while the cut was taken may commit behind a plan: the next one has it
FAILURES_NAMED = 5


@dataclass(frozen=True)
class Snapshotted:
    """A certified run and how it was got: rows this flow run wrote, in what time, and how that was spent."""

    certificate: closing.Certificate
    written: int
    duration_ms: int
    phases_ms: dict[str, int]


def _run_name() -> str:
    parameters: dict[str, Any] = runtime.flow_run.parameters
    return _dated(parameters.get("kind", "close"), parameters.get("business_date"))


def _dated(kind: str, business_date: date | None) -> str:
    name = "snapshot-balances" if kind == "close" else f"snapshot-balances-{kind}"
    return dated_name(name, business_date, in_progress=kind == "interim")


@flow(
    name="snapshot-balances",
    flow_run_name=_run_name,
    task_runner=ThreadPoolTaskRunner(max_workers=batches.workers()),  # type: ignore[arg-type]
    retries=0,
    persist_result=False,
)
def snapshot_balances(
    business_date: date | None = None,
    kind: Literal["close", "interim"] = "close",
    batch_size: Annotated[int, Field(ge=1, le=1_000_000)] = 1000,
) -> Snapshotted | State[Any]:
    """Write one snapshot per balance for a business date and certify them.

    Args:
        business_date: The day to snapshot. Empty: the next day in turn (close) or today (interim).
        kind: close is the official end of day, once per day and in order; interim is "as of now", any time.
        batch_size: How many balances one database transaction writes, from 1 to 1,000,000.
    """
    started = time.monotonic()
    facts: dict[str, Any] = {
        "operation": OPERATION, "batch_size": batch_size, "kind": kind, "business_date": business_date,
    }  # fmt: skip
    try:
        run = closing.open_run(kind, business_date, as_of())
        if run is None:
            return outcomes.nothing_to_do("every balance has its interim snapshot of this date already")
        facts |= {"run_id": run.run_id, "business_date": run.business_date}
        if business_date is None:
            outcomes.name_run(_dated(kind, run.business_date))
        with closing.held(run.run_id) as mine:
            if not mine:
                return outcomes.at_work(f"another process is at work on {run.name}")
            return _complete(closing.reload_run(run.run_id), facts, started)
    except Exception as error:
        failure = job_line(
            "balance snapshots failed",
            **facts,
            status="failed",
            total_snapshots=error.written if isinstance(error, BatchFailed) else 0,
            error=first_line(error),
            duration_ms=milliseconds_since(started),
        )
        get_run_logger().error(failure)
        if is_transient(error) or not isinstance(error, LedgerError | DBAPIError):
            raise
        return outcomes.failed_for_good(first_line(error))


def _complete(run: Run, facts: dict[str, Any], started: float) -> Snapshotted | State[Any]:
    logger = get_run_logger()
    if run.certified:
        return outcomes.nothing_to_do(
            f"{run.name} is certified already: {run.snapshot_count} snapshots, {run.checksum}"
        )
    logger.info(job_line("balance snapshots started", **facts, status="started"))
    written = 0
    phases_ms: dict[str, int] = {}
    with timed(phases_ms, "collect"):
        closing.collect_activity(run.run_id)
    for _ in range(PLAN_ROUNDS):
        with timed(phases_ms, "plan"):
            ranges = closing.plan_batches(run.run_id, facts["batch_size"])
        if not ranges:
            break
        with timed(phases_ms, "write"):
            written += _write(run, ranges)
    with timed(phases_ms, "certify"):
        certificate = closing.certify_run(run.run_id)
    duration_ms = milliseconds_since(started)
    logger.info(
        job_line(
            "balance snapshots completed",
            **facts,
            status="completed",
            total_snapshots=certificate.run.snapshot_count,
            written=written,
            duration_ms=duration_ms,
            snapshots_per_second=round(written / max(duration_ms / 1000, 0.001)),
            phases_ms=phases_ms,
            exceptions=certificate.exception_counts,
            late_postings=sum(late.posting_count for late in certificate.late_totals),
            checksum=certificate.run.checksum,
        )
    )
    reports.report_totals(certificate)
    if certificate.late_totals:
        reports.report_late_arrivals([certificate], reports.artifact_key("late-arrivals", run.kind, run.business_date))
    reports.announce(
        "run.certified", certificate.run, written=written, duration_ms=duration_ms,
        exceptions=certificate.exception_counts,
    )  # fmt: skip
    return Snapshotted(certificate, written, duration_ms, phases_ms)


def _write(run: Run, ranges: list[KeyRange]) -> int:
    """Write the ranges on the workers, and fail on purpose when one of them did."""
    total = sum(keys.balance_count for keys in ranges)
    written, failures = batches.map_ranges(
        closing.write_snapshots, run.run_id, ranges,
        progress_key=reports.artifact_key("progress", run.kind, run.business_date),
        description=f"{run.name}: {total} snapshots in {len(ranges)} batches",
    )  # fmt: skip
    if failures:
        reasons = "; ".join(first_line(failure) for failure in failures[:FAILURES_NAMED])
        raise BatchFailed(
            f"{len(failures)} of {len(written) + len(failures)} tasks failed, the others' snapshots are kept; run it "
            f"again to write the missing ones. {reasons}",
            transient=all(is_transient(failure) for failure in failures),
            written=sum(written),
        )
    return sum(written)
