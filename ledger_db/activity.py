"""Activity: what a run knows that its base run did not, per balance and effective business date."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date

from sqlalchemy import Connection, text

from ledger_db.row_checksums import cut_parameters, store_checksums
from ledger_db.runs import lock_open_run, whole
from ledger_db.sql import statement


@dataclass(frozen=True)
class Collected:
    """How many rows of activity a run has, how many of them are late arrivals, and how many exceptions it itemises."""

    activity_count: int
    late_count: int
    exception_count: int


@dataclass(frozen=True)
class LateArrival:
    """What arrived for one balance and business date after that date was closed; minor units."""

    balance_id: str
    currency: str
    effective_date: date
    posting_count: int
    credit_balance: int
    debit_balance: int
    inflight_credit_balance: int
    inflight_debit_balance: int


@dataclass(frozen=True)
class LateTotals:
    """All late arrivals of one run in one currency; minor units."""

    currency: str
    balance_count: int
    posting_count: int
    credit_balance: int
    debit_balance: int


def collect_activity(connection: Connection, run_id: int) -> Collected:
    """Write a run's activity in one transaction, or say what is there when it was written before.

    A close's raw rows get their checksums in the same transaction.

    Raises:
        RunNotOpen: the run is certified or abandoned.
    """
    run = lock_open_run(connection, run_id)
    if run.collected_at is None:
        connection.execute(text("SET LOCAL statement_timeout = 0"))  # one statement for the whole day
        row = connection.execute(
            statement(connection, "collect_activity"), {"run_id": run_id, **cut_parameters(connection, run)}
        ).one()
        if run.kind == "close":
            store_checksums(connection, run)
        connection.execute(
            text("UPDATE ledger_eod.runs SET collected_at = now() WHERE run_id = :run_id"), {"run_id": run_id}
        )
        return Collected(*row)
    row = connection.execute(
        text(
            "SELECT count(*), count(*) FILTER (WHERE is_late), "
            "(SELECT count(*) FROM ledger_eod.run_exceptions WHERE run_id = :run_id) "
            "FROM ledger_eod.activity WHERE run_id = :run_id"
        ),
        {"run_id": run_id},
    ).one()
    return Collected(*row)


def late_arrivals(connection: Connection, run_id: int, *, limit: int = 200) -> list[LateArrival]:
    """A run's late arrivals, largest effect first."""
    rows = connection.execute(
        text(
            """
            SELECT
                balance_id, currency, effective_date, posting_count, activity.credit_balance, activity.debit_balance,
                activity.inflight_credit_balance, activity.inflight_debit_balance
            FROM ledger_eod.activity
            JOIN blnk.balances ON balances.id = activity.balance_key
            WHERE run_id = :run_id AND is_late
            ORDER BY
                abs(activity.credit_balance - activity.debit_balance) DESC,
                abs(activity.inflight_credit_balance - activity.inflight_debit_balance) DESC,
                balance_key, effective_date
            LIMIT :limit
            """
        ),
        {"run_id": run_id, "limit": limit},
    )
    return [LateArrival(*row[:4], *(whole(amount) for amount in row[4:])) for row in rows]


def late_totals(connection: Connection, run_id: int) -> list[LateTotals]:
    """All of a run's late arrivals, by currency."""
    rows = connection.execute(
        text(
            """
            SELECT
                currency, count(DISTINCT balance_key), sum(posting_count), sum(activity.credit_balance),
                sum(activity.debit_balance)
            FROM ledger_eod.activity
            JOIN blnk.balances ON balances.id = activity.balance_key
            WHERE run_id = :run_id AND is_late
            GROUP BY currency
            ORDER BY currency
            """
        ),
        {"run_id": run_id},
    )
    return [LateTotals(row[0], *(whole(number) for number in row[1:])) for row in rows]
