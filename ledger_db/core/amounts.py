"""Amounts: numbers of minor units, exact at any size, and the one list of the columns that hold them.

A posting has four parts: credit, debit, inflight credit and inflight debit. A stored balance row has six amounts: the
four parts and the two differences, ``balance = credit - debit`` posted and inflight. All lists of columns, comparisons
and sums in Python are made from the names in this module, so that no list can forget an amount.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from decimal import Context, Decimal, Inexact
from typing import Any, Final, NamedTuple, Self

from sqlalchemy import RowMapping

#: For arithmetic with any number of digits. It raises where a result would be rounded.
EXACT: Final = Context(prec=100_000, traps=[Inexact])

#: The columns of the four parts, and of all six amounts, in the order of the reference's balance row.
PART_COLUMNS: Final = ("credit_balance", "debit_balance", "inflight_credit_balance", "inflight_debit_balance")
AMOUNT_COLUMNS: Final = (
    "balance", "credit_balance", "debit_balance", "inflight_balance", "inflight_credit_balance",
    "inflight_debit_balance",
)  # fmt: skip


def prefixed(prefix: str, columns: Iterable[str]) -> tuple[str, ...]:
    """The names of the columns that hold another state of the same amounts, for instance ``previous_balance``."""
    return tuple(f"{prefix}{column}" for column in columns)


class Parts(NamedTuple):
    """The four amounts that the posting rules prove; minor units, none of them negative in sound books."""

    credit: Decimal
    debit: Decimal
    inflight_credit: Decimal
    inflight_debit: Decimal

    @classmethod
    def of_row(cls, row: Any, prefix: str = "") -> Self:
        """The parts in a row's columns of this prefix."""
        return cls(*(getattr(row, column) for column in prefixed(prefix, PART_COLUMNS)))

    def as_columns(self, prefix: str = "") -> dict[str, Decimal]:
        """The parts by column."""
        return dict(zip(prefixed(prefix, PART_COLUMNS), self, strict=True))

    def plus(self, other: Parts) -> Parts:
        """The sum, amount by amount."""
        return Parts(*(EXACT.add(mine, theirs) for mine, theirs in zip(self, other, strict=True)))

    def minus(self, other: Parts) -> Parts:
        """The difference, amount by amount."""
        return Parts(*(EXACT.subtract(mine, theirs) for mine, theirs in zip(self, other, strict=True)))

    def as_evidence(self) -> dict[str, str]:
        """The parts as text, by column."""
        return {column: plain(amount) for column, amount in self.as_columns().items()}


NO_PARTS: Final = Parts(*[Decimal(0)] * 4)


class Amounts(NamedTuple):
    """The six amounts of a balance row, minor units, in the order of the ledger's columns."""

    balance: Decimal
    credit_balance: Decimal
    debit_balance: Decimal
    inflight_balance: Decimal
    inflight_credit_balance: Decimal
    inflight_debit_balance: Decimal

    @classmethod
    def of_parts(cls, parts: Parts) -> Self:
        """The amounts of a sound row with these parts: each balance is credit minus debit."""
        return cls(
            EXACT.subtract(parts.credit, parts.debit), parts.credit, parts.debit,
            EXACT.subtract(parts.inflight_credit, parts.inflight_debit), parts.inflight_credit, parts.inflight_debit,
        )  # fmt: skip

    @classmethod
    def of_row(cls, row: Any, prefix: str = "") -> Self:
        """The amounts in a row's columns of this prefix."""
        return cls(*(getattr(row, column) for column in prefixed(prefix, AMOUNT_COLUMNS)))

    @property
    def parts(self) -> Parts:
        """The four parts."""
        return Parts(self.credit_balance, self.debit_balance, self.inflight_credit_balance, self.inflight_debit_balance)

    def as_columns(self, prefix: str = "") -> dict[str, Decimal]:
        """The amounts by column."""
        return dict(zip(prefixed(prefix, AMOUNT_COLUMNS), self, strict=True))

    def minus(self, other: Amounts) -> Amounts:
        """The difference, amount by amount."""
        return Amounts(*(EXACT.subtract(mine, theirs) for mine, theirs in zip(self, other, strict=True)))


@dataclass(frozen=True, kw_only=True)
class StoredAmounts:
    """The six amounts of a row as it is stored, right or wrong, under the ledger's names; minor units."""

    balance: Decimal
    credit_balance: Decimal
    debit_balance: Decimal
    inflight_balance: Decimal
    inflight_credit_balance: Decimal
    inflight_debit_balance: Decimal


@dataclass(frozen=True, kw_only=True)
class WholeParts:
    """The four parts as integers under the ledger's names: minor units, credit and debit both positive."""

    credit_balance: int
    debit_balance: int
    inflight_credit_balance: int
    inflight_debit_balance: int

    @property
    def balance(self) -> int:
        """Credit minus debit."""
        return self.credit_balance - self.debit_balance

    @property
    def inflight_balance(self) -> int:
        """Inflight credit minus inflight debit."""
        return self.inflight_credit_balance - self.inflight_debit_balance


def whole(value: Decimal | int | None) -> int:
    """A sum of minor units as an exact integer; None is zero.

    Raises:
        ArithmeticError: the value has a fraction, which the posting rules exclude.
    """
    number = int(value or 0)
    if number != (value or 0):
        raise ArithmeticError(f"{value} is not a whole number of minor units")
    return number


def whole_amounts(row: RowMapping, *, other: tuple[str, ...]) -> dict[str, Any]:
    """A row's values by column, amounts and counts as integers. ``other``: the columns that are neither."""
    return {name: value if name in other else whole(value) for name, value in row.items()}


def plain(amount: Decimal | int) -> str:
    """An amount as text without exponent or trailing zeros: the same amount is always the same text."""
    text = f"{Decimal(amount):f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


def total(amounts: Iterable[Decimal]) -> Decimal:
    """The exact sum."""
    result = Decimal(0)
    for amount in amounts:
        result = EXACT.add(result, amount)
    return result


def gross(amounts: Iterable[Decimal]) -> Decimal:
    """The exact sum of the absolute amounts; ``abs()`` would round at 28 digits."""
    return total(amount.copy_abs() for amount in amounts)


def difference_of(amounts: Sequence[Decimal]) -> tuple[str, Decimal]:
    """Differences as one text, the same for equal differences, and the sum of their absolute amounts."""
    return "|".join(plain(amount) for amount in amounts), gross(amounts)
