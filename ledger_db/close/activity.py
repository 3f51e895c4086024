"""Activity: what a run counted, per balance and business date; the late part of it is on dates that were closed."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date

from sqlalchemy import ColumnElement, Connection, func, select

from ledger_db.close import tables
from ledger_db.core.amounts import PART_COLUMNS, WholeParts, whole_amounts


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


def late_arrivals(connection: Connection, run_id: int, *, limit: int = 200) -> list[LateArrival]:
    """A run's late arrivals, largest effect first, posted or on hold."""
    activity, captured = tables.activity, tables.captured_balances
    sums = [func.sum(activity.c[name]).label(name) for name in PART_COLUMNS]
    credit, debit, inflight_credit, inflight_debit = sums
    weight = func.greatest(
        func.abs(credit.element - debit.element), func.abs(inflight_credit.element - inflight_debit.element)
    )
    rows = connection.execute(
        select(
            captured.c.balance_id, captured.c.currency, activity.c.effective_date,
            func.sum(activity.c.posting_count).label("posting_count"), *sums,
        )
        .join_from(activity, captured, captured.c.balance_key == activity.c.balance_key)
        .where(*_late_in(run_id))
        .group_by(captured.c.balance_key, activity.c.effective_date)
        .order_by(weight.desc(), captured.c.balance_key, activity.c.effective_date)
        .limit(limit)
    ).mappings()  # fmt: skip
    return [LateArrival(**whole_amounts(row, other=("balance_id", "currency", "effective_date"))) for row in rows]


def late_totals(connection: Connection, run_id: int) -> list[LateTotals]:
    """All of a run's late arrivals, by currency."""
    activity, captured = tables.activity, tables.captured_balances
    rows = connection.execute(
        select(
            captured.c.currency,
            func.count(activity.c.balance_key.distinct()).label("balance_count"),
            func.sum(activity.c.posting_count).label("posting_count"),
            *(func.sum(activity.c[name]).label(name) for name in PART_COLUMNS),
        )
        .join_from(activity, captured, captured.c.balance_key == activity.c.balance_key)
        .where(*_late_in(run_id))
        .group_by(captured.c.currency)
        .order_by(captured.c.currency)
    ).mappings()
    return [LateTotals(**whole_amounts(row, other=("currency",))) for row in rows]


def _late_in(run_id: int) -> tuple[ColumnElement[bool], ...]:
    return (tables.activity.c.run_id == run_id, tables.activity.c.is_late)
