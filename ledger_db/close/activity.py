"""Activity: what a run knows that its base run did not, per balance and effective business date."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date

from sqlalchemy import Connection, text

from ledger_db.close.cut import cut_parameters
from ledger_db.close.row_checksums import store_checksums
from ledger_db.close.runs import lock_open_run
from ledger_db.core.amounts import whole_amounts
from ledger_db.postings.rules import statement


@dataclass(frozen=True)
class Collected:
    """How many rows of activity a run has, how many of them are late arrivals, and how many exceptions it itemises."""

    activity_count: int
    late_count: int
    exception_count: int


@dataclass(frozen=True, kw_only=True)
class LateAmounts:
    """What late arrivals post and hold; minor units, credit minus debit where it is one figure."""

    currency: str
    posting_count: int
    credit_balance: int
    debit_balance: int
    inflight_credit_balance: int
    inflight_debit_balance: int

    @property
    def effect(self) -> int:
        """By how much they moved the balance."""
        return self.credit_balance - self.debit_balance

    @property
    def inflight_effect(self) -> int:
        """By how much they moved what is on hold."""
        return self.inflight_credit_balance - self.inflight_debit_balance

    @property
    def weight(self) -> int:
        """The larger of both effects, without sign: what lists are ordered by."""
        return max(abs(self.effect), abs(self.inflight_effect))


@dataclass(frozen=True, kw_only=True)
class LateArrival(LateAmounts):
    """What arrived for one balance and business date after that date was closed."""

    balance_id: str
    effective_date: date


@dataclass(frozen=True, kw_only=True)
class LateTotals(LateAmounts):
    """All late arrivals of one run in one currency."""

    balance_count: int


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
            statement(connection, "close.collect_activity"), {"run_id": run_id, **cut_parameters(connection, run)}
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
    """A run's late arrivals, largest effect first, posted or on hold."""
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
                GREATEST(
                    abs(activity.credit_balance - activity.debit_balance),
                    abs(activity.inflight_credit_balance - activity.inflight_debit_balance)
                ) DESC,
                balance_key, effective_date
            LIMIT :limit
            """
        ),
        {"run_id": run_id, "limit": limit},
    ).mappings()
    return [LateArrival(**whole_amounts(row, other=("balance_id", "currency", "effective_date"))) for row in rows]


def late_totals(connection: Connection, run_id: int) -> list[LateTotals]:
    """All of a run's late arrivals, by currency."""
    rows = connection.execute(
        text(
            """
            SELECT
                currency, count(DISTINCT balance_key) AS balance_count, sum(posting_count) AS posting_count,
                sum(activity.credit_balance) AS credit_balance, sum(activity.debit_balance) AS debit_balance,
                sum(activity.inflight_credit_balance) AS inflight_credit_balance,
                sum(activity.inflight_debit_balance) AS inflight_debit_balance
            FROM ledger_eod.activity
            JOIN blnk.balances ON balances.id = activity.balance_key
            WHERE run_id = :run_id AND is_late
            GROUP BY currency
            ORDER BY currency
            """
        ),
        {"run_id": run_id},
    ).mappings()
    return [LateTotals(**whole_amounts(row, other=("currency",))) for row in rows]
