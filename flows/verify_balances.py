"""Compare every stored balance with what proves it, and determine the cause of each difference.

Reads the ledger and writes findings only. Safe to run again, twice at once, and to kill anywhere: a new call is a new
verification, and a difference that was found before is the same discrepancy.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, Literal

from prefect import flow, get_run_logger, runtime
from prefect.client.schemas.objects import State
from prefect.states import Completed

from flows import events, reports
from flows.parts import outcomes
from flows.parts.batches import Mapped, map_batches
from flows.parts.clock import dated_name
from flows.parts.hints import with_hint
from flows.parts.options import UNRETRIED_FLOW, BatchSize, batch_size_or_setting
from flows.parts.progress import Job
from ledger_db.core.amounts import plain, total
from ledger_db.errors import Hint, RunAtWork, first_line
from ledger_db.verification.closed_dates import NO_RUNS, RowsLeftOut
from ledger_db.verification.driver import VerificationReport
from ledger_db.verification.sweeps import Tally, Verification
from tasks import verification as verifying
from tasks.verification import PartialVerification


@dataclass(frozen=True)
class VerificationOutcome:
    """The report of a finished verification, and the time it took in all and by phase."""

    report: VerificationReport
    duration_ms: int
    phases_ms: dict[str, int]

    @property
    def summary(self) -> str:
        """The outcome in one line."""
        verification = self.report.verification
        if not verification.finding_count:
            return f"{verification.name}: {self.report.subject}, nothing found"
        causes = {total.cause for total in self.report.totals}
        return (
            f"{verification.name}: {self.report.subject}, {verification.finding_count} discrepancies, "
            f"{verification.opened_count} of them new ({', '.join(sorted(causes))})"
        )

    @property
    def totals(self) -> str:
        """The gross differences that it found, by currency; minor units."""
        gross: dict[str, list[Decimal]] = {}
        for each in self.report.totals:
            gross.setdefault(each.currency, []).append(each.gross_difference)
        return ", ".join(f"{plain(total(amounts))} {currency}".strip() for currency, amounts in gross.items())

    @property
    def largest(self) -> str:
        """The largest discrepancy in words; empty without one."""
        found = self.report.discrepancies
        if not found:
            return ""
        amount = f"{plain(found[0].gross_difference)} {found[0].currency or ''}".strip()
        return f"{found[0].subject}: {found[0].cause}, {amount}"


def _run_name() -> str:
    return dated_name(f"verify-balances-{runtime.flow_run.parameters.get('scope', 'since-close')}", None)


@flow(name="verify-balances", flow_run_name=_run_name, **UNRETRIED_FLOW)
def verify_balances(
    scope: Literal["since-close", "from-genesis", "checksums"] = "since-close",
    ledger_id: str | None = None,
    currency: str | None = None,
    balance_ids: list[str] | None = None,
    batch_size: BatchSize = None,
) -> VerificationOutcome | State[Any]:
    """Verify stored balances. What is found does not make the run fail; it is what the run is for.

    Args:
        scope: since-close proves from the last close, from-genesis from the first posting, checksums the closed days.
        ledger_id: Only balances of this ledger. Empty: all.
        currency: Only balances of this currency. Empty: all.
        balance_ids: Only these balances. Empty: all.
        batch_size: How many balances are compared at one instant, from 1 to 1,000,000. Empty: LEDGER_BATCH_SIZE.
    """
    job = Job("verification", {"operation": "verify_balances"})
    try:
        batch_size = batch_size_or_setting(batch_size)
        with verifying.hold_scope(scope):
            verification = verifying.open_verification(scope, ledger_id or None, currency or None, balance_ids or None)
            job = job.about(verification_id=verification.verification_id, scope=scope, batch_size=batch_size)
            outcome = _verify(verification, batch_size, job)
    except RunAtWork as busy:
        return outcomes.at_work(str(busy))
    except Exception as error:
        return outcomes.stopped_by(error)
    if outcome.report.verification.finding_count:
        return Completed(name=outcomes.FOUND, message=with_hint(outcome.summary, Hint.list_discrepancies), data=outcome)
    return outcome


def _verify(verification: Verification, batch_size: int, job: Job) -> VerificationOutcome:
    job.started()
    try:
        checked, mapped = _compare(verification, batch_size, job)
        with job.phase("report"):
            tally = verifying.total(mapped.results, checked, failed=len(mapped.failures))
            compared = sum((part.compared for part in mapped.results), NO_RUNS)
            report = verifying.end_verification(verification.verification_id, tally, compared)
        mapped.require_all("the others' findings are kept and nothing is closed; run it again")
    except Exception as error:
        job.failed(error=first_line(error), duration_ms=job.duration_ms)
        raise
    outcome = VerificationOutcome(report, job.duration_ms, job.phases_ms)
    for why, count in report.compared.rows_left_out.items():
        get_run_logger().log(
            logging.INFO if why is RowsLeftOut.interim else logging.WARNING,
            "the raw rows of %s runs were not compared: %s", count, why,
        )  # fmt: skip
    _report(outcome, job)
    return outcome


def _compare(verification: Verification, batch_size: int, job: Job) -> tuple[Tally, Mapped[PartialVerification]]:
    """The tally of the transactions, and the results of all batches."""
    verification_id = verification.verification_id
    progress_key = reports.verification_key("progress-verify", verification)
    if verification.scope == "checksums":
        run_ids = verifying.find_runs_to_check()
        with job.phase("compare"):
            return Tally(), map_batches(
                verifying.check_runs, verification_id, run_ids,
                progress_key=progress_key, description=f"{verification.name}: {len(run_ids)} certified runs",
            )  # fmt: skip
    checking = verifying.check_transactions.submit(verification_id)  # needs the cut only: it runs beside the others
    with job.phase("collect"):
        verifying.collect_postings(verification_id)
    ranges = verifying.plan_ranges(verification_id, batch_size)
    if not ranges:
        return checking.result(), Mapped([], [])
    balance_count = sum(keys.balance_count for keys in ranges)
    with job.phase("compare"):
        mapped = map_batches(
            verifying.verify_ranges, verification_id, ranges, progress_key=progress_key,
            description=f"{verification.name}: {balance_count} balances in {len(ranges)} batches",
        )  # fmt: skip
    with job.phase("transactions"):
        return checking.result(), mapped


def _report(outcome: VerificationOutcome, job: Job) -> None:
    """One log line, one table, one event."""
    verification = outcome.report.verification
    causes = {
        cause: sum(total.discrepancy_count for total in outcome.report.totals if total.cause == cause)
        for cause in sorted({total.cause for total in outcome.report.totals})
    }
    job.completed(
        total_balances=verification.balance_count,
        findings=verification.finding_count,
        opened=verification.opened_count,
        closed=verification.closed_count,
        causes=causes,
        explained_percent=verification.explained_percent,
        duration_ms=outcome.duration_ms,
        phases_ms=outcome.phases_ms,
    )
    reports.report_discrepancies(outcome.report)
    events.announce_verification(
        verification, summary=outcome.summary, totals=outcome.totals, largest=outcome.largest, causes=causes,
        duration_ms=outcome.duration_ms,
    )  # fmt: skip
