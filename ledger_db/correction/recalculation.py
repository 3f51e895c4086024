"""Recalculation: one balance from its postings, posted and inflight, and whether its stored row may be corrected.

Reads only. What it says holds at the instant of its statement; under the row's lock it goes on to hold.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from decimal import Decimal
from typing import Any, Final, Literal

from sqlalchemy import Connection

from ledger_db.close.cut import cut_of
from ledger_db.close.runs import Run
from ledger_db.core.amounts import EXACT, Amounts, Parts, plain
from ledger_db.errors import UnknownBalance
from ledger_db.postings.rules import statement
from ledger_db.verification.causes import Finding, Suspect, judge
from ledger_db.verification.drift import explanations_of, suspect_of

#: agrees: nothing to do. correct: it may be corrected. refused: a correction is not the answer. corrected: it was.
#: stale: at the moment of correcting the difference was another one than was proposed.
Verdict = Literal["agrees", "correct", "corrected", "refused", "stale"]

#: Causes whose answer is to bring the stored row to what its postings say.
CORRECTABLE: Final = frozenset({"balance_not_credit_minus_debit", "wrong_scale", "tampered_stored_row", "unexplained"})

#: An UPDATE of a balance row is notified with the row as JSON; PostgreSQL refuses a payload of this many bytes or more.
NOTIFICATION_LIMIT: Final = 8000


@dataclass(frozen=True)
class Recalculation:
    """A balance as stored and as its postings say, at one instant. ``cut``: that instant."""

    suspect: Suspect
    version: int
    is_requested: bool
    unprovable_count: int
    notification_bytes: int
    cut: str
    executed_at: datetime

    @property
    def previous(self) -> Amounts:
        """The stored row."""
        stored = self.suspect.stored
        return Amounts(
            self.suspect.balance, stored.credit, stored.debit, self.suspect.inflight_balance,
            stored.inflight_credit, stored.inflight_debit,
        )  # fmt: skip

    @property
    def recalculated(self) -> Amounts:
        """What its postings and its declared opening balance say."""
        return Amounts.of_parts(self.suspect.proven)

    @property
    def agrees(self) -> bool:
        """Whether there is nothing to correct."""
        return self.previous == self.recalculated

    @property
    def refusal(self) -> str:
        """Why its stored row cannot be corrected, whatever the cause of the difference; empty: it can be."""
        if self.unprovable_count:
            return (
                f"{self.unprovable_count} transactions cannot be told exactly: what the balance should be cannot be "
                "proved; declare an opening balance"
            )
        if not self.suspect.raw_rows_agree_with_snapshot:
            return (
                f"its raw rows no longer add up to the close of {self.suspect.base_date}: a transaction or the "
                "snapshot was changed; find out which before the row is touched"
            )
        if min(self.suspect.proven.inflight_credit, self.suspect.proven.inflight_debit) < 0:
            return (
                "its postings take more off its holds than was held, and a negative hold is never written: find out "
                "which settlement is wrong first"
            )
        if self.notification_bytes >= NOTIFICATION_LIMIT:  # the write itself measures what it would write
            return too_long(self.notification_bytes)
        return ""


@dataclass(frozen=True)
class Result:
    """What reconstruction came to for one balance: what was, and what is. Minor units."""

    balance_key: int
    balance_id: str
    currency: str
    version: int
    verdict: Verdict
    cause: str | None
    remark: str
    previous: Amounts
    recalculated: Amounts
    gross_difference: Decimal
    executed_at: datetime
    evidence: Mapping[str, Any] = field(default_factory=dict)

    @property
    def difference(self) -> Decimal:
        """What a correction adds to the balance: recalculated minus previous, the sign of the reference system."""
        return EXACT.subtract(self.recalculated.balance, self.previous.balance)

    @property
    def figures(self) -> tuple[str, ...]:
        """What a correction adds to credit, debit and their inflight amounts, or else to the two balances; as text.

        Not both: the application recomputes the balances from the parts at its next write.
        """
        change = self.recalculated.minus(self.previous)
        parts = (
            change.credit_balance,
            change.debit_balance,
            change.inflight_credit_balance,
            change.inflight_debit_balance,
        )
        return tuple(map(plain, parts if any(parts) else (change.balance, change.inflight_balance)))

    def as_reference(self) -> dict[str, str]:
        """The eight fields of the reference system's ``BLNK_RECONCILIATION_RESULT``."""
        return {
            "executed_at": f"{self.executed_at:%Y-%m-%d %H:%M:%S.%f+00}",
            "previous_debit": plain(self.previous.debit_balance),
            "previous_credit": plain(self.previous.credit_balance),
            "previous_balance": plain(self.previous.balance),
            "recalculated_debit": plain(self.recalculated.debit_balance),
            "recalculated_credit": plain(self.recalculated.credit_balance),
            "recalculated_balance": plain(self.recalculated.balance),
            "difference": plain(self.difference),
        }


def recalculate(connection: Connection, balance_id: str, base: Run | None) -> Recalculation:
    """Sum one balance from its first posting and read its stored row, in one statement; minor units.

    ``base``: the newest certified close of this cluster, against whose snapshot the raw rows are held too.

    Raises:
        UnknownBalance: there is none of this id.
    """
    cut = cut_of(connection, None if base is None else base.run_id, "base")
    row = connection.execute(
        statement(connection, "correction.recalculate_balance"),
        {"balance_id": balance_id, "base_date": None if base is None else base.business_date, **cut},
    ).one_or_none()
    if row is None:
        raise UnknownBalance(f"there is no balance {balance_id}; ledger-eod balances lists them")
    suspect = suspect_of(row)
    if base is None:
        suspect = replace(suspect, snapshot=None)
    else:
        based = Parts(
            row.based_credit_balance, row.based_debit_balance, row.based_inflight_credit_balance,
            row.based_inflight_debit_balance,
        )  # fmt: skip
        suspect = replace(suspect, based=based, base_date=base.business_date)
    return Recalculation(
        suspect, row.version, row.is_requested, int(row.unprovable_count), row.notification_bytes, row.cut,
        row.executed_at,
    )  # fmt: skip


def examine(connection: Connection, balance_id: str, base: Run | None) -> Result:
    """Recalculate one balance, find the cause of a difference, and say whether it may be corrected.

    The causes are read by further statements: give it a transaction in which all statements see the same instant.
    """
    found = recalculate(connection, balance_id, base)
    if found.agrees:
        return result_of(found, "agrees", None, "the stored row is what its postings say")
    explained = explanations_of(connection, [found.suspect], None if base is None else base.cut)
    suspect = replace(found.suspect, explanations=explained.get(balance_id, {}))
    finding = judge(suspect)[-1]
    refusal = found.refusal or _refusal_of(finding)
    return result_of(found, "refused" if refusal else "correct", finding, refusal)


def _refusal_of(finding: Finding) -> str:
    if finding.cause in CORRECTABLE and finding.action != "declare_unprovable":
        return ""
    return (
        f"{finding.cause}: the answer is not a correction of the stored row but to {finding.action.replace('_', ' ')}"
    )


def result_of(found: Recalculation, verdict: Verdict, finding: Finding | None, remark: str) -> Result:
    """A recalculation with its verdict."""
    return Result(
        balance_key=found.suspect.balance_key, balance_id=found.suspect.balance_id, currency=found.suspect.currency,
        version=found.version, verdict=verdict, cause=None if finding is None else finding.cause, remark=remark,
        previous=found.previous, recalculated=found.recalculated,
        gross_difference=Decimal(0) if finding is None else _gross(found, finding),
        executed_at=found.executed_at, evidence={} if finding is None else finding.evidence,
    )  # fmt: skip


def _gross(found: Recalculation, finding: Finding) -> Decimal:
    """How much would be corrected, for the limits: what the finding says, or the balances, if they are worse off."""
    change = found.recalculated.minus(found.previous)
    gross = [finding.gross_difference, EXACT.add(change.balance.copy_abs(), change.inflight_balance.copy_abs())]
    return next((each for each in gross if each.is_nan()), None) or max(gross)


def too_long(notification_bytes: int) -> str:
    """Why a row with so much metadata cannot be written."""
    return (
        f"its row would be notified with {notification_bytes:,} bytes, and PostgreSQL refuses {NOTIFICATION_LIMIT:,} "
        "or more: make its meta_data smaller first"
    )
