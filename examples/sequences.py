"""The jobs as plain sequences of ``ledger_db`` calls, each step in a database transaction of its own.

To be replaced by the drivers of ``ledger_db``, which run the same sequences.
"""

from __future__ import annotations

from datetime import date, timedelta
from decimal import Decimal

from sqlalchemy import Engine, text

from ledger_db.close.activity import collect_activity
from ledger_db.close.certification import certify_run
from ledger_db.close.opening import open_close
from ledger_db.close.runs import Run
from ledger_db.close.snapshots import ensure_partition, plan_key_ranges, write_snapshot_batch
from ledger_db.core.calendar import BusinessCalendar
from ledger_db.correction.corrections import correct_balance
from ledger_db.correction.proposals import begin_applying, seal
from ledger_db.correction.recalculation import Result, examine
from ledger_db.correction.reconstructions import (
    Reconstruction,
    base_of,
    end_reconstruction,
    open_reconstruction,
    results_of,
    select_balances,
    store_result,
)
from ledger_db.verification.discrepancies import Discrepancy, close_unseen, list_discrepancies, record_findings
from ledger_db.verification.drift import check_transactions, verify_batch
from ledger_db.verification.sweeps import (
    Scope,
    Tally,
    Verification,
    collect_postings,
    end_verification,
    open_verification,
    plan_balance_ranges,
)

READ_ONE_INSTANT = text("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY")


def open_day(engine: Engine, day: date) -> Run:
    """Open a date's close and take its cut, five minutes after the date has ended in UTC."""
    calendar = BusinessCalendar()
    with engine.begin() as connection:
        now = calendar.closes_at(day) + timedelta(minutes=5)
        return open_close(connection, business_date=day, calendar=calendar, now=now)


def close_day(engine: Engine, day: date, batch_size: int = 1000) -> Run:
    """Close one business date: cut, activity, snapshots, certificate."""
    run = open_day(engine, day)
    with engine.begin() as connection:
        collect_activity(connection, run.run_id)
        ensure_partition(connection, day)
        ranges = plan_key_ranges(connection, run.run_id, batch_size=batch_size)
    for keys in ranges:
        with engine.begin() as connection:
            write_snapshot_batch(connection, run.run_id, keys)
    with engine.begin() as connection:
        return certify_run(connection, run.run_id)


def verify(engine: Engine, scope: Scope = "since-close") -> tuple[Verification, list[Discrepancy]]:
    """Compare every stored balance with what proves it; the verification and the open discrepancies it saw."""
    with engine.begin() as connection:
        opened = open_verification(connection, scope=scope)
        collect_postings(connection, opened.verification_id)
        findings = check_transactions(connection, opened.verification_id)
        ranges = plan_balance_ranges(connection, opened.verification_id, batch_size=1000)
    tally = Tally()
    for keys in ranges:
        with engine.begin() as connection:
            connection.execute(READ_ONE_INSTANT)
            verdict = verify_batch(connection, opened.verification_id, keys)
        findings += verdict.findings
        tally = Tally(balance_count=tally.balance_count + verdict.balance_count)
    with engine.begin() as connection:
        recorded = record_findings(connection, opened, findings)
        closed = close_unseen(connection, opened)
        tally = Tally(
            balance_count=tally.balance_count, finding_count=len(findings), opened_count=recorded.opened_count
        )
        ended = end_verification(connection, opened.verification_id, tally, closed_count=closed)
        return ended, list_discrepancies(connection, verification_id=opened.verification_id)


def propose(engine: Engine, *, reason: str, proposed_by: str) -> tuple[Reconstruction, list[Result]]:
    """Recalculate every balance with an open discrepancy and seal what is to be corrected; every limit is zero."""
    with engine.begin() as connection:
        opened = open_reconstruction(
            connection, mode="apply", selection="discrepancies", reason=reason, proposed_by=proposed_by
        )
        chosen = select_balances(connection, "discrepancies", None)
    for balance_id in chosen:
        with engine.begin() as connection:
            connection.execute(READ_ONE_INSTANT)
            result = examine(connection, balance_id, base_of(connection, opened))
        with engine.begin() as connection:
            store_result(connection, opened.reconstruction_id, result)
    with engine.begin() as connection:
        sealed = seal(connection, opened.reconstruction_id, limits={"USD": Decimal(0)}, balance_limit=10)
        return sealed, results_of(connection, opened.reconstruction_id)


def apply(engine: Engine, proposal: Reconstruction, approval_id: int) -> list[Result]:
    """Correct what was approved, one balance in one transaction."""
    with engine.begin() as connection:
        begin_applying(connection, proposal.reconstruction_id, approval_id)
        to_correct = results_of(connection, proposal.reconstruction_id, verdict="correct")
    for result in to_correct:
        with engine.begin() as connection:
            correct_balance(connection, proposal.reconstruction_id, result.balance_id)
    with engine.begin() as connection:
        end_reconstruction(connection, proposal.reconstruction_id)
        return results_of(connection, proposal.reconstruction_id)
