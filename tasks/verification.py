"""The units of work of a verification. They read the ledger and write findings only."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from decimal import Decimal

from prefect import get_run_logger, task

from ledger_db.attach.migrate import require_current
from ledger_db.close import row_checksums
from ledger_db.close.runs import Run
from ledger_db.core.amounts import EXACT
from ledger_db.core.key_ranges import KeyRange
from ledger_db.server.catalogue import system_identifier
from ledger_db.server.connections import one_instant, transaction
from ledger_db.verification import closed_dates, discrepancies, drift
from ledger_db.verification import sweeps as verifications
from ledger_db.verification.causes import Finding
from ledger_db.verification.discrepancies import CauseTotal, Discrepancy
from ledger_db.verification.sweeps import Scope, Tally, Verification
from tasks.each import for_each
from tasks.holds import held
from tasks.retries import LEDGER_TASK


@dataclass(frozen=True)
class PartialVerification:
    """The figures of some batches. ``unchecked_closes``: closes from before checksums were stored."""

    tally: Tally
    unchecked_closes: int = 0


@dataclass(frozen=True)
class VerificationReport:
    """A verification that ended: its discrepancies, largest first, and their totals by cause."""

    verification: Verification
    discrepancies: list[Discrepancy]
    totals: list[CauseTotal]


def hold_scope(scope: Scope) -> AbstractContextManager[None]:
    """Hold a scope while the block lasts.

    Raises:
        RunAtWork: another process is at work on it.
    """
    return held(verifications.hold_scope, scope, f"a {scope} verification")


@task(**LEDGER_TASK)
def find_close_to_verify() -> Run | None:
    """The newest certified close, or None when it is verified already."""
    with transaction() as connection:
        require_current(connection)
        return verifications.close_to_verify(connection)


@task(**LEDGER_TASK)
def open_verification(
    scope: Scope, ledger_id: str | None, currency: str | None, balance_ids: Sequence[str] | None
) -> Verification:
    """Open a verification. Those that killed processes left open in its scope are abandoned."""
    with transaction() as connection:
        require_current(connection)
        verifications.abandon_others(connection, scope)
        opened = verifications.open_verification(
            connection, scope=scope, ledger_id=ledger_id, currency=currency, balance_ids=balance_ids
        )
    get_run_logger().info("%s from run %s, cut %s", opened.name, opened.base_run_id, opened.cut)
    return opened


@task(**LEDGER_TASK)
def collect_postings(verification_id: int) -> int:
    """Sum the postings in the verification's cut per balance, once."""
    with transaction() as connection:
        return verifications.collect_postings(connection, verification_id)


@task(**LEDGER_TASK)
def check_transactions(verification_id: int) -> Tally:
    """Check the transactions that no verification has checked yet, and store the findings."""
    with one_instant() as connection:
        findings = drift.check_transactions(connection, verification_id)
    return _record(verification_id, findings)


@task(**LEDGER_TASK)
def plan_ranges(verification_id: int, batch_size: int) -> list[KeyRange]:
    """The key ranges of the balances in the verification's scope."""
    with transaction() as connection:
        return verifications.plan_balance_ranges(connection, verification_id, batch_size=batch_size)


@task(**LEDGER_TASK)
def find_closes_to_check() -> list[int]:
    """The closes whose raw rows can be checked, oldest first."""
    with transaction() as connection:
        return row_checksums.closes_to_check(connection, system_identifier(connection))


@task(**LEDGER_TASK)
def verify_ranges(verification_id: int, ranges: list[KeyRange]) -> PartialVerification:
    """Verify some ranges in order, each at one instant of its own, and store the findings.

    A range that fails does not keep the others from being verified.

    Raises:
        BatchFailed: names each range that failed and why.
    """

    def verify(keys: KeyRange) -> Tally:
        with one_instant() as connection:
            verified = drift.verify_batch(connection, verification_id, keys)
        recorded = _record(verification_id, verified.findings)
        return _sum([recorded, Tally(1, 0, verified.balance_count, gross_volume=verified.gross_volume)])

    tallies = for_each(
        verify, ranges, failure=f"verification {verification_id} has no verdict on ",
        written=lambda tally: tally.balance_count,
    )  # fmt: skip
    return PartialVerification(_sum(tallies))


@task(**LEDGER_TASK)
def check_closes(verification_id: int, run_ids: list[int]) -> PartialVerification:
    """Check some closes against their raw rows, each at one instant of its own, and store the findings.

    Raises:
        BatchFailed: names each close that failed and why.
    """

    def check(run_id: int) -> PartialVerification:
        with one_instant() as connection:
            checked = closed_dates.check_close(connection, run_id)
        recorded = _record(verification_id, checked.findings)
        return PartialVerification(_sum([recorded, Tally(batch_count=1)]), int(not checked.has_checksums))

    parts = for_each(
        check, run_ids, name=lambda run_id: f"run {run_id}",
        failure=f"verification {verification_id} has no verdict on ", written=lambda _: 0,
    )  # fmt: skip
    return PartialVerification(
        _sum([part.tally for part in parts]), unchecked_closes=sum(part.unchecked_closes for part in parts)
    )


@task(**LEDGER_TASK)
def end_verification(verification_id: int, tally: Tally) -> VerificationReport:
    """Store the totals, end the verification and read its report.

    Closes the discrepancies in its scope that it did not find again, unless a batch failed.
    """
    with transaction() as connection:
        verification = verifications.lock_open_verification(connection, verification_id)
        closed = 0 if tally.failed_batch_count else discrepancies.close_unseen(connection, verification)
        ended = verifications.end_verification(connection, verification_id, tally, closed_count=closed)
    with transaction() as connection:
        return VerificationReport(
            ended,
            discrepancies.list_discrepancies(connection, verification_id=verification_id),
            discrepancies.cause_totals(connection, verification_id=verification_id),
        )


def total(parts: Sequence[PartialVerification], checked: Tally, *, failed: int) -> Tally:
    """The figures of a whole verification. ``checked``: of its transactions; ``failed``: tasks without a result."""
    return _sum([*(part.tally for part in parts), checked, Tally(failed_batch_count=failed)])


def _record(verification_id: int, findings: list[Finding]) -> Tally:
    """Store findings in a transaction of their own: the one they were read in is read-only."""
    if not findings:
        return Tally()
    with transaction() as connection:
        verification = verifications.find_verification(connection, verification_id)
        recorded = discrepancies.record_findings(connection, verification, findings)
    unexplained = Decimal(0)
    for finding in findings:
        unexplained = EXACT.add(unexplained, finding.unexplained_volume)
    return Tally(finding_count=len(findings), opened_count=recorded.opened_count, unexplained_volume=unexplained)


def _sum(tallies: Sequence[Tally]) -> Tally:
    gross, unexplained = Decimal(0), Decimal(0)
    for tally in tallies:
        gross, unexplained = EXACT.add(gross, tally.gross_volume), EXACT.add(unexplained, tally.unexplained_volume)
    return Tally(
        batch_count=sum(tally.batch_count for tally in tallies),
        failed_batch_count=sum(tally.failed_batch_count for tally in tallies),
        balance_count=sum(tally.balance_count for tally in tallies),
        finding_count=sum(tally.finding_count for tally in tallies),
        opened_count=sum(tally.opened_count for tally in tallies),
        gross_volume=gross,
        unexplained_volume=unexplained,
    )
