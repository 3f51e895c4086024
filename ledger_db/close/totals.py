"""What a certified run adds up to, and the transactions that it itemised."""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import Connection, and_, func, select

from ledger_db.books.tables import transactions
from ledger_db.close import tables
from ledger_db.core.amounts import PART_COLUMNS, WholeParts, whole_amounts


@dataclass(frozen=True, kw_only=True)
class RunTotals(WholeParts):
    """What a certified run's snapshots add up to in one currency; minor units, credit and debit both positive."""

    currency: str
    balance_count: int
    itemised_difference: int
    itemised_inflight_difference: int

    @property
    def difference(self) -> int:
        """Credit minus debit: zero in books that balance, else what the itemised exceptions explain."""
        return self.balance


@dataclass(frozen=True)
class RunException:
    """A transaction that does not cancel out within one currency, or that cannot be counted yet, or that is gone.

    The id of one that is gone is not known any more: ``transaction_id`` is then its key.
    """

    transaction_id: str
    currency: str
    cause: str
    difference: int
    inflight_difference: int


def totals_of(connection: Connection, run_id: int) -> list[RunTotals]:
    """What a certified run adds up to, by currency."""
    totals = tables.run_totals
    rows = connection.execute(
        select(
            totals.c.currency, totals.c.balance_count, *(totals.c[name] for name in PART_COLUMNS),
            totals.c.itemised_difference, totals.c.itemised_inflight_difference,
        )
        .where(totals.c.run_id == run_id)
        .order_by(totals.c.currency)
    ).mappings()  # fmt: skip
    return [RunTotals(**whole_amounts(row, other=("currency",))) for row in rows]


def exceptions_of(connection: Connection, run_id: int, *, limit: int = 200) -> list[RunException]:
    """The transactions a run itemised: those it could not count first, then by difference, largest first."""
    itemised = tables.run_exceptions
    has_no_difference = and_(itemised.c.difference == 0, itemised.c.inflight_difference == 0)
    rows = connection.execute(
        select(
            func.coalesce(transactions.c.transaction_id, func.concat("key ", itemised.c.transaction_key)).label(
                "transaction_id"
            ),
            itemised.c.currency,
            itemised.c.cause,
            itemised.c.difference,
            itemised.c.inflight_difference,
        )
        .join_from(itemised, transactions, transactions.c.id == itemised.c.transaction_key, isouter=True)
        .where(itemised.c.run_id == run_id)
        .order_by(
            has_no_difference.desc(),
            func.abs(itemised.c.difference).desc(),
            itemised.c.transaction_key,
            itemised.c.currency,
        )
        .limit(limit)
    ).mappings()
    return [RunException(**whole_amounts(row, other=("transaction_id", "currency", "cause"))) for row in rows]


def exception_counts(connection: Connection, run_id: int) -> dict[str, int]:
    """How many transactions a run itemised, by cause, most first."""
    itemised = tables.run_exceptions
    count = func.count(itemised.c.transaction_key.distinct())
    rows = connection.execute(
        select(itemised.c.cause, count)
        .where(itemised.c.run_id == run_id)
        .group_by(itemised.c.cause)
        .order_by(count.desc(), itemised.c.cause)
    )
    return dict(row.tuple() for row in rows)
