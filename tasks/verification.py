"""The units of work of a verification: each opens a transaction, calls ``ledger_db`` and returns a small result."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from decimal import Decimal

from prefect import get_run_logger, task

from ledger_db.attach.migrate import require_current
from ledger_db.close import row_checksums
from ledger_db.close.runs import Run
from ledger_db.core.amounts import EXACT
from ledger_db.core.key_ranges import KeyRange
from ledger_db.errors import BatchFailed, first_line, is_transient
from ledger_db.server.catalogue import system_identifier
from ledger_db.server.connections import ledger_engine, one_instant, transaction
from ledger_db.verification import closed_dates, discrepancies, drift
from ledger_db.verification import sweeps as verifications
from ledger_db.verification.causes import Finding
from ledger_db.verification.discrepancies import CauseTotal, Discrepancy
from ledger_db.verification.sweeps import Scope, Tally, Verification
from tasks.retries import LEDGER_TASK


@dataclass(frozen=True)
class Verdict:
    """What some batches came to. ``unchecked_closes``: closes from before checksums were stored."""

    tally: Tally
    unchecked_closes: int = 0


@dataclass(frozen=True)
class Report:
    """A verification that ended: the discrepancies it saw, worst first, and totals of all of them."""

    verification: Verification
    discrepancies: list[Discrepancy]
    totals: list[CauseTotal]


@contextmanager
def held(scope: Scope) -> Iterator[bool]:
    """Hold a scope while the block lasts; False when another process is at work on it."""
    with verifications.hold_scope(ledger_engine(), scope) as mine:
        yield mine


@task(**LEDGER_TASK)
def find_close_to_verify() -> Run | None:
    """The newest certified close, unless it is verified already."""
    with transaction() as connection:
        require_current(connection)
        return verifications.close_to_verify(connection)


@task(**LEDGER_TASK)
def open_verification(
    scope: Scope, ledger_id: str | None, currency: str | None, balance_ids: Sequence[str] | None
) -> Verification:
    """Open a verification; what dead processes left open in its scope is given up."""
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
    """Look at the transactions that no verification has looked at yet, one by one."""
    with one_instant() as connection:
        findings = drift.check_transactions(connection, verification_id)
    return _recorded(verification_id, findings)


@task(**LEDGER_TASK)
def plan_ranges(verification_id: int, batch_size: int) -> list[KeyRange]:
    """The key ranges of the balances that the verification is about."""
    with transaction() as connection:
        return verifications.plan_balance_ranges(connection, verification_id, batch_size=batch_size)


@task(**LEDGER_TASK)
def find_closes_to_check() -> list[int]:
    """The closes whose raw rows can be checked, oldest first."""
    with transaction() as connection:
        return row_checksums.closes_to_check(connection, system_identifier(connection))


@task(**LEDGER_TASK)
def verify_ranges(verification_id: int, ranges: list[KeyRange]) -> Verdict:
    """Verify some ranges in a row, each at one instant of its own, and store what was found.

    A range that fails does not keep the others from their verdict.

    Raises:
        BatchFailed: names each range that failed and why.
    """
    tallies: list[Tally] = []
    failures: list[str] = []
    transient = False
    for keys in ranges:
        try:
            with one_instant() as connection:
                verdict = drift.verify_batch(connection, verification_id, keys)
            recorded = _recorded(verification_id, verdict.findings)
            tallies.append(
                _sum([recorded, Tally(1, 0, verdict.balance_count, gross_volume=verdict.gross_volume)])
            )  # fmt: skip
        except Exception as error:
            failures.append(f"{keys}: {first_line(error)}")
            transient = transient or is_transient(error)
    if failures:
        raise BatchFailed(
            f"verification {verification_id} has no verdict on {'; '.join(failures)}", transient=transient,
            written=sum(tally.balance_count for tally in tallies),
        )  # fmt: skip
    return Verdict(_sum(tallies))


@task(**LEDGER_TASK)
def check_closes(verification_id: int, run_ids: list[int]) -> Verdict:
    """Check some closes against their raw rows, each at one instant of its own, and store what was found.

    Raises:
        BatchFailed: names each close that failed and why.
    """
    tallies: list[Tally] = []
    failures: list[str] = []
    transient = False
    unchecked = 0
    for run_id in run_ids:
        try:
            with one_instant() as connection:
                verdict = closed_dates.check_close(connection, run_id)
            tallies.append(_sum([_recorded(verification_id, verdict.findings), Tally(batch_count=1)]))
            unchecked += not verdict.has_checksums
        except Exception as error:
            failures.append(f"run {run_id}: {first_line(error)}")
            transient = transient or is_transient(error)
    if failures:
        raise BatchFailed(
            f"verification {verification_id} has no verdict on {'; '.join(failures)}", transient=transient
        )
    return Verdict(_sum(tallies), unchecked_closes=unchecked)


@task(**LEDGER_TASK)
def end_verification(verification_id: int, tally: Tally) -> Report:
    """Close what was open and is not there any more, unless a batch failed; store the totals and read the report."""
    with transaction() as connection:
        verification = verifications.lock_open_verification(connection, verification_id)
        closed = 0 if tally.failed_batch_count else discrepancies.close_unseen(connection, verification)
        ended = verifications.end_verification(connection, verification_id, tally, closed_count=closed)
    with transaction() as connection:
        return Report(
            ended,
            discrepancies.list_discrepancies(connection, verification_id=verification_id),
            discrepancies.cause_totals(connection, verification_id=verification_id),
        )


def total(verdicts: Sequence[Verdict], checked: Tally, *, failed: int) -> Tally:
    """All verdicts of a verification as one; ``failed``: tasks without one."""
    return _sum([*(verdict.tally for verdict in verdicts), checked, Tally(failed_batch_count=failed)])


def _recorded(verification_id: int, findings: list[Finding]) -> Tally:
    """Store findings in a transaction of their own: what was read is at one instant, what is written is not."""
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
