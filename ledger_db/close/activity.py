"""Activity: what a run knows that its base run did not, per balance and effective business date."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date

from sqlalchemy import ColumnElement, Connection, func, select, update

from ledger_db.books.tables import balances
from ledger_db.close import tables
from ledger_db.close.cut import cut_parameters
from ledger_db.close.row_checksums import store_checksums
from ledger_db.close.runs import lock_open_run
from ledger_db.core.amounts import PART_COLUMNS, WholeParts, whole_amounts
from ledger_db.postings.rules import statement
from ledger_db.server.connections import without_time_limit


@dataclass(frozen=True)
class CollectedActivity:
    """How many rows of activity a run has, how many of them are late arrivals, and how many exceptions it itemises."""

    activity_count: int
    late_count: int
    exception_count: int


@dataclass(frozen=True, kw_only=True)
class LateAmounts(WholeParts):
    """What late arrivals post and hold; minor units."""

    currency: str
    posting_count: int

    @property
    def effect(self) -> int:
        """By how much they moved the balance."""
        return self.balance

    @property
    def inflight_effect(self) -> int:
        """By how much they moved what is on hold."""
        return self.inflight_balance

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


def collect_activity(connection: Connection, run_id: int) -> CollectedActivity:
    """Write a run's activity in one transaction, or count what is there when it was written before.

    A close's raw rows get their checksums in the same transaction.

    Raises:
        RunNotOpen: the run is certified or abandoned.
    """
    run = lock_open_run(connection, run_id)
    if run.collected_at is not None:
        return _collected_before(connection, run_id)
    without_time_limit(connection)  # one statement for the whole day
    row = connection.execute(
        statement(connection, "close.collect_activity"), {"run_id": run_id, **cut_parameters(connection, run)}
    ).one()
    if run.kind == "close":
        store_checksums(connection, run)
    connection.execute(update(tables.runs).where(tables.runs.c.run_id == run_id).values(collected_at=func.now()))
    return CollectedActivity(*row)


def _collected_before(connection: Connection, run_id: int) -> CollectedActivity:
    activity, exceptions = tables.activity, tables.run_exceptions
    exception_count = select(func.count()).where(exceptions.c.run_id == run_id).scalar_subquery()
    row = connection.execute(
        select(func.count(), func.count().filter(activity.c.is_late), exception_count).where(
            activity.c.run_id == run_id
        )
    ).one()
    return CollectedActivity(*row)


def late_arrivals(connection: Connection, run_id: int, *, limit: int = 200) -> list[LateArrival]:
    """A run's late arrivals, largest effect first, posted or on hold."""
    activity = tables.activity
    weight = func.greatest(
        func.abs(activity.c.credit_balance - activity.c.debit_balance),
        func.abs(activity.c.inflight_credit_balance - activity.c.inflight_debit_balance),
    )
    rows = connection.execute(
        select(
            balances.c.balance_id, balances.c.currency, activity.c.effective_date, activity.c.posting_count,
            *(activity.c[name] for name in PART_COLUMNS),
        )
        .join_from(activity, balances, balances.c.id == activity.c.balance_key)
        .where(*_late_in(run_id))
        .order_by(weight.desc(), activity.c.balance_key, activity.c.effective_date)
        .limit(limit)
    ).mappings()  # fmt: skip
    return [LateArrival(**whole_amounts(row, other=("balance_id", "currency", "effective_date"))) for row in rows]


def late_totals(connection: Connection, run_id: int) -> list[LateTotals]:
    """All of a run's late arrivals, by currency."""
    activity = tables.activity
    rows = connection.execute(
        select(
            balances.c.currency,
            func.count(activity.c.balance_key.distinct()).label("balance_count"),
            func.sum(activity.c.posting_count).label("posting_count"),
            *(func.sum(activity.c[name]).label(name) for name in PART_COLUMNS),
        )
        .join_from(activity, balances, balances.c.id == activity.c.balance_key)
        .where(*_late_in(run_id))
        .group_by(balances.c.currency)
        .order_by(balances.c.currency)
    ).mappings()
    return [LateTotals(**whole_amounts(row, other=("currency",))) for row in rows]


def _late_in(run_id: int) -> tuple[ColumnElement[bool], ...]:
    return (tables.activity.c.run_id == run_id, tables.activity.c.is_late)
