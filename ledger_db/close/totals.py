"""What a certified run adds up to, and the transactions that it itemised."""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import Connection, text

from ledger_db.core.amounts import whole_amounts


@dataclass(frozen=True)
class RunTotals:
    """What a certified run's snapshots add up to in one currency; minor units, credit and debit both positive."""

    currency: str
    balance_count: int
    credit_balance: int
    debit_balance: int
    inflight_credit_balance: int
    inflight_debit_balance: int
    itemised_difference: int
    itemised_inflight_difference: int

    @property
    def difference(self) -> int:
        """Credit minus debit: zero in books that balance, else what the itemised exceptions explain."""
        return self.credit_balance - self.debit_balance


@dataclass(frozen=True)
class RunException:
    """A transaction that does not cancel out within one currency, or whose amount cannot be counted."""

    transaction_id: str
    currency: str
    cause: str
    difference: int
    inflight_difference: int


def totals_of(connection: Connection, run_id: int) -> list[RunTotals]:
    """What a certified run adds up to, by currency."""
    rows = connection.execute(
        text(
            "SELECT currency, balance_count, credit_balance, debit_balance, inflight_credit_balance, "
            "inflight_debit_balance, itemised_difference, itemised_inflight_difference "
            "FROM ledger_eod.run_totals WHERE run_id = :run_id ORDER BY currency"
        ),
        {"run_id": run_id},
    ).mappings()
    return [RunTotals(**whole_amounts(row, other=("currency",))) for row in rows]


def exceptions_of(connection: Connection, run_id: int, *, limit: int = 200) -> list[RunException]:
    """The transactions a run itemised: those it could not count first, then by difference, largest first."""
    rows = connection.execute(
        text(
            "SELECT transaction_id, e.currency, e.cause, e.difference, e.inflight_difference "
            "FROM ledger_eod.run_exceptions AS e JOIN blnk.transactions ON transactions.id = e.transaction_key "
            "WHERE run_id = :run_id ORDER BY e.difference = 0 AND e.inflight_difference = 0 DESC, "
            "abs(e.difference) DESC, transaction_key, e.currency LIMIT :limit"
        ),
        {"run_id": run_id, "limit": limit},
    ).mappings()
    return [RunException(**whole_amounts(row, other=("transaction_id", "currency", "cause"))) for row in rows]


def exception_counts(connection: Connection, run_id: int) -> dict[str, int]:
    """How many transactions a run itemised, by cause, most first."""
    rows = connection.execute(
        text(
            "SELECT cause, count(DISTINCT transaction_key) FROM ledger_eod.run_exceptions WHERE run_id = :run_id "
            "GROUP BY cause ORDER BY 2 DESC, 1"
        ),
        {"run_id": run_id},
    )
    return dict(row.tuple() for row in rows)
