"""Compare every stored balance with what proves it, and say of each difference what it comes from.

Reads the ledger and writes findings only. Safe to run again, twice at once, and to kill anywhere: a new call is a new
verification, and a difference that was found before is the same discrepancy.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from prefect import flow, get_run_logger, runtime
from prefect.client.schemas.objects import State
from prefect.states import Completed
from prefect.task_runners import ThreadPoolTaskRunner
from pydantic import Field
from sqlalchemy.exc import DBAPIError

from flows import reports
from flows.parts import batches, outcomes
from flows.parts.batches import milliseconds_since, timed
from flows.parts.clock import dated_name
from ledger_db.errors import BatchFailed, LedgerError, first_line, is_transient
from ledger_db.verification.sweeps import Tally, Verification
from tasks import verification as verifying
from tasks.logs import job_line
from tasks.verification import Report, Verdict

OPERATION = "verify_balances"


@dataclass(frozen=True)
class Verified:
    """A finished verification and how it was got."""

    report: Report
    duration_ms: int
    phases_ms: dict[str, int]

    @property
    def summary(self) -> str:
        """The verdict in one line."""
        verification = self.report.verification
        if not verification.finding_count:
            return f"{verification.name}: nothing found"
        causes = {total.cause for total in self.report.totals}
        return (
            f"{verification.name}: {verification.finding_count} discrepancies, {verification.opened_count} of them new "
            f"({', '.join(sorted(causes))}); ledger-eod discrepancies lists them"
        )


def _run_name() -> str:
    return dated_name(f"verify-balances-{runtime.flow_run.parameters.get('scope', 'since-close')}", None)


@flow(
    name="verify-balances",
    flow_run_name=_run_name,
    task_runner=ThreadPoolTaskRunner(max_workers=batches.workers()),  # type: ignore[arg-type]
    retries=0,
    persist_result=False,
)
def verify_balances(
    scope: Literal["since-close", "from-genesis", "checksums"] = "since-close",
    ledger_id: str | None = None,
    currency: str | None = None,
    balance_ids: list[str] | None = None,
    batch_size: Annotated[int, Field(ge=1, le=1_000_000)] = 1000,
) -> Verified | State[Any]:
    """Verify stored balances. What is found does not make the run fail; it is what the run is for.

    Args:
        scope: since-close proves from the last close, from-genesis from the first posting, checksums the closed days.
        ledger_id: Only balances of this ledger. Empty: all.
        currency: Only balances of this currency. Empty: all.
        balance_ids: Only these balances. Empty: all.
        batch_size: How many balances are compared at one instant, from 1 to 1,000,000.
    """
    started = time.monotonic()
    try:
        with verifying.held(scope) as mine:
            if not mine:
                return outcomes.at_work(f"another process is at work on a {scope} verification")
            verification = verifying.open_verification(scope, ledger_id or None, currency or None, balance_ids or None)
            return _verify(verification, batch_size, started)
    except (LedgerError, DBAPIError) as error:
        if is_transient(error):
            raise
        return outcomes.failed_for_good(first_line(error))


def _verify(verification: Verification, batch_size: int, started: float) -> Verified | State[Any]:
    logger = get_run_logger()
    facts = {
        "operation": OPERATION, "verification_id": verification.verification_id, "scope": verification.scope,
        "batch_size": batch_size,
    }  # fmt: skip
    logger.info(job_line("verification started", **facts, status="started"))
    phases_ms: dict[str, int] = {}
    try:
        checked, verdicts, failures = _judge(verification, batch_size, phases_ms)
        with timed(phases_ms, "report"):
            tally = verifying.total(verdicts, checked, failed=len(failures))
            report = verifying.end_verification(verification.verification_id, tally)
        _require_all(verdicts, failures)
    except Exception as error:
        logger.error(
            job_line(
                "verification failed", **facts, status="failed", error=first_line(error),
                duration_ms=milliseconds_since(started),
            )
        )  # fmt: skip
        raise
    verified = Verified(report, milliseconds_since(started), phases_ms)
    unchecked = sum(verdict.unchecked_closes for verdict in verdicts)
    if unchecked:
        logger.warning("%s closes were made before checksums were stored: only their snapshots were checked", unchecked)
    _tell(verified, facts)
    if report.verification.finding_count:
        return Completed(message=verified.summary, data=verified)
    return verified


def _require_all(verdicts: list[Verdict], failures: list[BaseException]) -> None:
    """Fail on purpose when a task ended without a verdict."""
    if failures:
        raise BatchFailed(
            f"{len(failures)} of {len(verdicts) + len(failures)} tasks failed, the others' findings are kept and "
            f"nothing is closed; run it again. {failures[0]}",
            transient=all(is_transient(failure) for failure in failures),
        )


def _judge(
    verification: Verification, batch_size: int, phases_ms: dict[str, int]
) -> tuple[Tally, list[Verdict], list[BaseException]]:
    """Every verdict of a verification, and what the tasks without one failed with."""
    verification_id = verification.verification_id
    progress_key = reports.artifact_key("progress", "verify", verification.scope)
    if verification.scope == "checksums":
        closes = verifying.find_closes_to_check()
        with timed(phases_ms, "compare"):
            verdicts, failures = batches.map_ranges(
                verifying.check_closes, verification_id, closes,
                progress_key=progress_key, description=f"{verification.name}: {len(closes)} closes",
            )  # fmt: skip
        return Tally(), verdicts, failures
    checking = verifying.check_transactions.submit(verification_id)  # needs the cut only: goes on beside the others
    with timed(phases_ms, "collect"):
        verifying.collect_postings(verification_id)
    ranges = verifying.plan_ranges(verification_id, batch_size)
    if not ranges:
        return checking.result(), [], []
    with timed(phases_ms, "compare"):
        verdicts, failures = batches.map_ranges(
            verifying.verify_ranges, verification_id, ranges, progress_key=progress_key,
            description=f"{verification.name}: {sum(keys.balance_count for keys in ranges)} balances in "
            f"{len(ranges)} batches",
        )  # fmt: skip
    with timed(phases_ms, "transactions"):
        checked = checking.result()
    return checked, verdicts, failures


def _tell(verified: Verified, facts: dict[str, Any]) -> None:
    """One summary line, one table, one event."""
    verification = verified.report.verification
    causes = {
        cause: sum(total.discrepancy_count for total in verified.report.totals if total.cause == cause)
        for cause in sorted({total.cause for total in verified.report.totals})
    }
    get_run_logger().info(
        job_line(
            "verification completed", **facts, status="completed",
            total_balances=verification.balance_count, findings=verification.finding_count,
            opened=verification.opened_count, closed=verification.closed_count, causes=causes,
            explained_percent=verification.explained_percent, duration_ms=verified.duration_ms,
            phases_ms=verified.phases_ms,
        )
    )  # fmt: skip
    reports.report_discrepancies(verified.report)
    reports.announce_verification(verification, causes=causes, duration_ms=verified.duration_ms)
