"""A whole verification without an orchestrator: the steps that the flow runs as tasks, one after the other."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

from sqlalchemy import Engine

from ledger_db.close.runs import certified_run_ids
from ledger_db.core.key_ranges import KeyRange
from ledger_db.errors import BatchFailed, Hint, RunAtWork, first_line, is_transient
from ledger_db.server.connections import one_instant, transaction
from ledger_db.settings import get_settings
from ledger_db.verification import closed_dates, discrepancies, drift, sweeps
from ledger_db.verification.causes import Finding
from ledger_db.verification.closed_dates import NO_RUNS, RunsCompared
from ledger_db.verification.discrepancies import CauseTotal, Discrepancy
from ledger_db.verification.sweeps import Scope, Tally, Verification


@dataclass(frozen=True)
class VerificationReport:
    """A verification that ended: the discrepancies it saw, largest first, and their totals by cause.

    ``compared``: the runs that one of scope checksums compared.
    """

    verification: Verification
    discrepancies: list[Discrepancy]
    totals: list[CauseTotal]
    compared: RunsCompared

    @property
    def subject(self) -> str:
        """What was compared, in words."""
        if self.verification.scope == "checksums":
            return str(self.compared)
        return f"{self.verification.balance_count:,} balances"


@dataclass(frozen=True)
class VerificationResult(VerificationReport):
    """A report with every finding."""

    findings: list[Finding]


@dataclass(frozen=True)
class CheckResult:
    """What one step of a verification found, stored and counted. ``compared``: the run that it was about."""

    tally: Tally
    findings: list[Finding]
    compared: RunsCompared = NO_RUNS


def verify(
    engine: Engine,
    *,
    scope: Scope,
    ledger_id: str | None = None,
    currency: str | None = None,
    balance_ids: Sequence[str] | None = None,
    batch_size: int | None = None,
    workers: int = 1,
) -> VerificationResult:
    """Verify stored balances, or closed dates, each step in a transaction of its own.

    Where a step fails the others go on, and the verification ends as abandoned. (Under the orchestrator a check of
    transactions that fails for good leaves it open; the next verification of its scope abandons it.)

    Reads the ledger and writes findings only. A second call is a new verification; what it finds again is the same
    discrepancy. ``batch_size``: how many balances are compared at one instant; None: the setting. ``workers``: how many
    steps run at the same time; 1: strictly one after the other.

    Raises:
        BatchFailed: some batches failed. The findings of the others are kept, and nothing is closed.
        NothingToVerify: the scope needs a close and there is none.
        RunAtWork: another process is at work on a verification of this scope.
        UnknownBalance: one that is given does not exist.
    """
    with sweeps.hold_scope(engine, scope) as mine:
        if not mine:
            raise RunAtWork(f"another process is at work on a {scope} verification")
        with transaction(engine) as connection:
            sweeps.abandon_others(connection, scope)
            verification = sweeps.open_verification(
                connection, scope=scope, ledger_id=ledger_id, currency=currency, balance_ids=balance_ids
            )
        with ThreadPoolExecutor(workers) as pool:
            if scope == "checksums":
                steps = _check_runs(engine, verification, pool)
            else:
                steps = _check_balances(engine, verification, batch_size or get_settings().batch_size, pool)
        return _result_of(engine, verification, steps)


def _check_balances(
    engine: Engine, verification: Verification, batch_size: int, pool: ThreadPoolExecutor
) -> list[Future[CheckResult]]:
    verification_id = verification.verification_id

    def plan() -> list[KeyRange]:
        with transaction(engine) as connection:
            sweeps.collect_postings(connection, verification_id)
        with transaction(engine) as connection:
            return sweeps.plan_balance_ranges(connection, verification_id, batch_size=batch_size)

    checking = pool.submit(check_transactions, engine, verification_id)
    planned = pool.submit(plan).result()
    return [checking, *(pool.submit(check_range, engine, verification_id, keys) for keys in planned)]


def _check_runs(engine: Engine, verification: Verification, pool: ThreadPoolExecutor) -> list[Future[CheckResult]]:
    with transaction(engine) as connection:
        run_ids = certified_run_ids(connection)
    return [pool.submit(check_run, engine, verification.verification_id, run_id) for run_id in run_ids]


def check_transactions(engine: Engine, verification_id: int) -> CheckResult:
    """Check the transactions that no verification has checked yet, at one instant, and store the findings."""
    with one_instant(engine) as connection:
        findings = drift.check_transactions(connection, verification_id)
    return CheckResult(_record(engine, verification_id, findings), findings)


def check_range(engine: Engine, verification_id: int, keys: KeyRange) -> CheckResult:
    """Compare one range of balances at one instant, and store the findings."""
    with one_instant(engine) as connection:
        check = drift.verify_batch(connection, verification_id, keys)
    return CheckResult(check.tally + _record(engine, verification_id, check.findings), check.findings)


def check_run(engine: Engine, verification_id: int, run_id: int) -> CheckResult:
    """Check one certified run against its raw rows at one instant, and store the findings."""
    with one_instant(engine) as connection:
        check = closed_dates.check_run(connection, run_id)
    tally = check.tally + _record(engine, verification_id, check.findings)
    return CheckResult(tally, check.findings, check.compared)


def _record(engine: Engine, verification_id: int, findings: Sequence[Finding]) -> Tally:
    """Store findings in a transaction of their own: the one that read them is read-only."""
    if not findings:
        return Tally()
    with transaction(engine) as connection:
        verification = sweeps.find_verification(connection, verification_id)
        return discrepancies.record_findings(connection, verification, findings)


def _result_of(engine: Engine, verification: Verification, steps: Sequence[Future[CheckResult]]) -> VerificationResult:
    """Conclude a verification with the sum of its steps.

    Raises:
        BatchFailed: some steps failed.
    """
    failures = [error for step in steps if (error := step.exception()) is not None]
    checked = [step.result() for step in steps if step.exception() is None]
    tally = sum((each.tally for each in checked), Tally(failed_batch_count=len(failures)))
    compared = sum((each.compared for each in checked), NO_RUNS)
    report = conclude(engine, verification.verification_id, tally, compared)
    if failures:
        raise BatchFailed(
            f"{len(failures)} of {len(steps)} batches failed, the others' findings are kept and nothing is closed. "
            f"{first_line(failures[0])}",
            transient=all(is_transient(failure) for failure in failures), hint=Hint.run_again,
        )  # fmt: skip
    return VerificationResult(**vars(report), findings=[finding for each in checked for finding in each.findings])


def conclude(engine: Engine, verification_id: int, tally: Tally, compared: RunsCompared) -> VerificationReport:
    """End a verification with its totals and read its report.

    Closes the discrepancies in its scope that it would have seen and did not, unless a batch failed.

    Raises:
        VerificationNotOpen: it has ended.
    """
    with transaction(engine) as connection:
        verification = sweeps.lock_open_verification(connection, verification_id)
        closed_count = 0 if tally.failed_batch_count else discrepancies.close_unseen(connection, verification)
        ended = sweeps.end_verification(connection, verification_id, tally, closed_count=closed_count)
    with transaction(engine) as connection:
        return VerificationReport(
            ended,
            discrepancies.list_discrepancies(connection, verification_id=verification_id),
            discrepancies.cause_totals(connection, verification_id=verification_id),
            compared,
        )
