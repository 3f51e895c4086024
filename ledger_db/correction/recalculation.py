"""Recalculation: one balance from its postings, posted and inflight, and whether its stored row may be corrected.

Reads only. The result is true at the instant of its statement, and stays true while the row is locked.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from decimal import Decimal
from typing import Any, Final, Literal

from sqlalchemy import Connection

from ledger_db.close.cluster import find_cluster
from ledger_db.close.cut import base_parameters
from ledger_db.close.runs import Run
from ledger_db.core.amounts import EXACT, Amounts, Parts, plain
from ledger_db.errors import Hint, UnknownBalance
from ledger_db.postings.rules import statement
from ledger_db.verification.causes import Finding, Suspect, judge
from ledger_db.verification.drift import match_explanations, suspect_of

#: agrees: nothing to do. correct: it may be corrected. refused: a correction is not the answer. corrected: it was.
#: stale: when it was to be corrected, the difference was not the proposed one any more.
Outcome = Literal["agrees", "correct", "corrected", "refused", "stale"]

#: Causes that a correction of the stored row answers.
CORRECTABLE: Final = frozenset({"balance_not_credit_minus_debit", "wrong_scale", "tampered_stored_row", "unexplained"})

#: An UPDATE of a balance row is notified with the row as JSON; PostgreSQL refuses a payload of this many bytes or more.
NOTIFICATION_LIMIT: Final = 8000


@dataclass(frozen=True)
class Recalculation:
    """A balance as stored and as its postings prove it, at one instant. ``cut``: that instant."""

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
        suspect = self.suspect
        return Amounts.of_parts(suspect.stored)._replace(
            balance=suspect.balance, inflight_balance=suspect.inflight_balance
        )

    @property
    def recalculated(self) -> Amounts:
        """The sums of its postings and its declared opening balance."""
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
                f"{self.unprovable_count} transactions have no exact amount: what the balance should be cannot be "
                "proved; declare an opening balance"
            )
        if not self.suspect.is_as_captured:
            return (
                "its row has another key or currency than the one that closes answer for: find out why before it is "
                "corrected"
            )
        if not self.suspect.raw_rows_agree_with_snapshot:
            return (
                f"its raw rows no longer add up to the close of {self.suspect.base_date}: a transaction or the "
                "snapshot was changed; find out which before the row is corrected"
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
    """The result for one balance: what was stored, what its postings prove, and the outcome. Minor units."""

    balance_key: int
    balance_id: str
    currency: str
    version: int
    verdict: Outcome
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
        """What a correction adds to the four parts, or if nothing, to the two balances; as text.

        Never both: the application computes the balances from the parts at its next write.
        """
        change = self.recalculated.minus(self.previous)
        return tuple(map(plain, change.parts if any(change.parts) else (change.balance, change.inflight_balance)))

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

    ``base``: the newest certified close; the raw rows are compared with its snapshot, too.

    Raises:
        UnknownBalance: there is none of this id.
    """
    row = connection.execute(
        statement(connection, "correction.recalculate"),
        {"balance_id": balance_id, "cluster_id": find_cluster(connection), **base_parameters(connection, base)},
    ).one_or_none()
    if row is None:
        raise UnknownBalance(f"there is no balance {balance_id}", hint=Hint.list_balances)
    suspect = suspect_of(row)
    if base is None:
        suspect = replace(suspect, snapshot=None)
    else:
        suspect = replace(suspect, based=Parts.of_row(row, "based_"), base_date=base.business_date)
    return Recalculation(
        suspect, row.version, row.is_requested, int(row.unprovable_count), row.notification_bytes, row.cut,
        row.executed_at,
    )  # fmt: skip


def examine(connection: Connection, balance_id: str, base: Run | None) -> Result:
    """Recalculate one balance, determine the cause of a difference, and whether it may be corrected.

    The causes are read by further statements: give it a transaction in which all statements see the same instant.
    """
    found = recalculate(connection, balance_id, base)
    if found.agrees:
        return result_of(found, "agrees", None, "the stored row is what its postings prove")
    explained = match_explanations(connection, [found.suspect], base)
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


def result_of(found: Recalculation, verdict: Outcome, finding: Finding | None, remark: str) -> Result:
    """A recalculation with its outcome."""
    return Result(
        balance_key=found.suspect.balance_key, balance_id=found.suspect.balance_id, currency=found.suspect.currency,
        version=found.version, verdict=verdict, cause=None if finding is None else finding.cause, remark=remark,
        previous=found.previous, recalculated=found.recalculated,
        gross_difference=Decimal(0) if finding is None else _gross(found, finding),
        executed_at=found.executed_at, evidence={} if finding is None else finding.evidence,
    )  # fmt: skip


def _gross(found: Recalculation, finding: Finding) -> Decimal:
    """How much would be corrected, for the limits: the finding's difference or the balances', whichever is larger."""
    change = found.recalculated.minus(found.previous)
    gross = [finding.gross_difference, EXACT.add(change.balance.copy_abs(), change.inflight_balance.copy_abs())]
    return next((each for each in gross if each.is_nan()), None) or max(gross)


def too_long(notification_bytes: int) -> str:
    """Why a row with so much metadata cannot be written."""
    return (
        f"the notification of its row would have {notification_bytes:,} bytes, and PostgreSQL refuses "
        f"{NOTIFICATION_LIMIT:,} or more: make its meta_data smaller first"
    )
