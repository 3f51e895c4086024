"""The units of work of a verification. They read the ledger and write findings only."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass

from prefect import get_run_logger, task

from ledger_db.attach.migrate import require_current
from ledger_db.close.runs import Run, certified_run_ids
from ledger_db.core.key_ranges import KeyRange
from ledger_db.server.connections import ledger_engine, transaction
from ledger_db.verification import driver
from ledger_db.verification import sweeps as verifications
from ledger_db.verification.closed_dates import NO_RUNS, RunsCompared
from ledger_db.verification.driver import CheckResult, VerificationReport
from ledger_db.verification.sweeps import Scope, Tally, Verification
from tasks.each import for_each
from tasks.holds import held
from tasks.retries import LEDGER_TASK


@dataclass(frozen=True)
class PartialVerification:
    """The figures of some batches, or of some certified runs that were compared."""

    tally: Tally
    compared: RunsCompared = NO_RUNS


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
    return driver.check_transactions(ledger_engine(), verification_id).tally


@task(**LEDGER_TASK)
def plan_ranges(verification_id: int, batch_size: int) -> list[KeyRange]:
    """The key ranges of the balances in the verification's scope."""
    with transaction() as connection:
        return verifications.plan_balance_ranges(connection, verification_id, batch_size=batch_size)


@task(**LEDGER_TASK)
def find_runs_to_check() -> list[int]:
    """All certified runs, oldest first."""
    with transaction() as connection:
        return certified_run_ids(connection)


@task(**LEDGER_TASK)
def verify_ranges(verification_id: int, ranges: list[KeyRange]) -> PartialVerification:
    """Verify some ranges in order, each at one instant of its own, and store the findings.

    A range that fails does not keep the others from being verified.

    Raises:
        BatchFailed: names each range that failed and why.
    """

    def verify(keys: KeyRange) -> Tally:
        return driver.check_range(ledger_engine(), verification_id, keys).tally

    tallies = for_each(
        verify, ranges, failure=f"verification {verification_id} has no verdict on ",
        written=lambda tally: tally.balance_count,
    )  # fmt: skip
    return PartialVerification(sum(tallies, Tally()))


@task(**LEDGER_TASK)
def check_runs(verification_id: int, run_ids: list[int]) -> PartialVerification:
    """Check some certified runs against their raw rows, each at one instant of its own, and store the findings.

    Raises:
        BatchFailed: names each close that failed and why.
    """

    def check(run_id: int) -> CheckResult:
        return driver.check_run(ledger_engine(), verification_id, run_id)

    checked = for_each(
        check, run_ids, name=lambda run_id: f"run {run_id}",
        failure=f"verification {verification_id} has no verdict on ", written=lambda _: 0,
    )  # fmt: skip
    return PartialVerification(
        sum((each.tally for each in checked), Tally()),
        sum((each.compared for each in checked), NO_RUNS),
    )


@task(**LEDGER_TASK)
def end_verification(verification_id: int, tally: Tally, compared: RunsCompared) -> VerificationReport:
    """Store the totals, end the verification and read its report.

    Closes the discrepancies in its scope that it did not find again, unless a batch failed.
    """
    return driver.conclude(ledger_engine(), verification_id, tally, compared)


def total(parts: Sequence[PartialVerification], checked: Tally, *, failed: int) -> Tally:
    """The figures of a whole verification. ``checked``: of its transactions; ``failed``: tasks without a result."""
    return sum((part.tally for part in parts), checked + Tally(failed_batch_count=failed))
