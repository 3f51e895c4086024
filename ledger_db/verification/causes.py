"""Causes of differences, determined by ordered rules, each with its evidence and what to do about it.

The stored row of a balance is one witness. The raw rows are another. Where there is a close, its snapshot plus what was
posted since is a third. The cause follows from which of the three disagrees, and from known mistakes of applications.
Pure: this module reads nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import date
from decimal import Decimal
from enum import StrEnum
from typing import Any, Final, Literal

from ledger_db.core.amounts import EXACT, Parts, difference_of, plain

Action = Literal["correct", "investigate", "wait", "declare_unprovable"]


class Cause(StrEnum):
    """Every cause that a discrepancy can have; docs/verification.md describes them."""

    row_edited_or_removed = "row_edited_or_removed"
    currency_changed = "currency_changed"
    balance_removed = "balance_removed"
    balance_replaced = "balance_replaced"
    balance_not_credit_minus_debit = "balance_not_credit_minus_debit"
    negative_inflight = "negative_inflight"
    legacy_rate = "legacy_rate"
    wrong_scale = "wrong_scale"
    early_commit = "early_commit"
    orphan_commit = "orphan_commit"
    over_commit = "over_commit"
    duplicate_reference = "duplicate_reference"
    never_counted = "never_counted"
    cross_currency = "cross_currency"
    tampered_stored_row = "tampered_stored_row"
    unexplained = "unexplained"


@dataclass(frozen=True)
class Explanation:
    """A known mistake that would account for a balance's drift, and the transactions on which it may have been made."""

    row_count: int
    transaction_ids: tuple[str, ...]


@dataclass(frozen=True)
class Suspect:
    """A balance on which witnesses differ, or whose row is not the one that closes answer for, at one instant.

    ``balance_key``, ``currency``: as a run captured them. ``live_key``, ``live_currency``: as they are now; None when
    the row is gone, and its amounts are zero then.
    ``proven``: what its postings prove. ``since``: the part of it that the base close's chain has not counted.
    ``snapshot``: the base close's figures. ``based``: the sums of the other raw rows. Both None without a close.
    """

    balance_key: int
    balance_id: str
    currency: str
    live_key: int | None
    live_currency: str | None
    balance: Decimal
    inflight_balance: Decimal
    stored: Parts
    proven: Parts
    since: Parts
    snapshot: Parts | None = None
    based: Parts | None = None
    base_date: date | None = None
    explanations: Mapping[str, Explanation] = field(default_factory=dict)

    @property
    def is_as_captured(self) -> bool:
        """Whether the stored row is the one that closes answer for, in its currency."""
        return (self.live_key, self.live_currency) == (self.balance_key, self.currency)

    @property
    def drift(self) -> Parts:
        """Stored minus proven."""
        return self.stored.minus(self.proven)

    @property
    def raw_rows_agree_with_snapshot(self) -> bool:
        """Whether the base close's snapshot is the sum of its raw rows; true without a close."""
        return self.snapshot == self.based

    @property
    def stored_agrees(self) -> bool:
        """Whether the stored row agrees with at least one other witness."""
        witnesses = [self.proven]
        witnesses += [part.plus(self.since) for part in (self.snapshot, self.based) if part is not None]
        return self.stored in witnesses


@dataclass(frozen=True)
class Finding:
    """A difference with its cause. About a balance, a transaction, a business date, or a balance on a business date."""

    cause: str
    action: Action
    balance_key: int | None = None
    transaction_key: int | None = None
    business_date: date | None = None
    stored: Parts | None = None
    proven: Parts | None = None
    balance: Decimal | None = None
    inflight_balance: Decimal | None = None
    difference: str = ""
    gross_difference: Decimal = Decimal(0)
    evidence: Mapping[str, Any] = field(default_factory=dict)

    @property
    def unexplained_volume(self) -> Decimal:
        """How much of the posted volume has no explanation; minor units."""
        if self.cause != "unexplained" or self.stored is None or self.proven is None:
            return Decimal(0)
        drift = self.stored.minus(self.proven)
        return EXACT.add(drift.credit.copy_abs(), drift.debit.copy_abs())


def judge(suspect: Suspect) -> list[Finding]:
    """Every finding about one balance: that its row is not the one that closes answer for, one about its history, and
    one about the amounts of its stored row, by the first rule that applies.
    """
    findings = []
    if not suspect.is_as_captured:
        findings.append(_not_as_captured(suspect))
    if not suspect.raw_rows_agree_with_snapshot:
        findings.append(_row_edited_or_removed(suspect))
    if suspect.live_key is None:
        return findings
    for rule in RULES:
        judgement = rule(suspect)
        if judgement is not None:
            return [*findings, _about_stored_row(suspect, *judgement)]
    return findings


#: A cause, what to do about it, and the evidence.
Judgement = tuple[str, Action, dict[str, Any]]


def _not_as_captured(suspect: Suspect) -> Finding:
    """The row that closes answer for is gone, was made again under another key, or has another currency now.

    Closes and history keep to what was captured, so the same difference is found until the row is as it was.
    """
    if suspect.live_key is None:
        cause = "balance_removed"
    elif suspect.live_key != suspect.balance_key:
        cause = "balance_replaced"
    else:
        cause = "currency_changed"
    is_now = None if suspect.live_key is None else {"key": suspect.live_key, "currency": suspect.live_currency}
    return Finding(
        cause, "investigate", balance_key=suspect.balance_key,
        difference="" if is_now is None else "|".join(map(str, is_now.values())),
        evidence={
            "balance_id": suspect.balance_id,
            "was": {"key": suspect.balance_key, "currency": suspect.currency}, "is": is_now,
        },
    )  # fmt: skip


def _row_edited_or_removed(suspect: Suspect) -> Finding:
    """The sum of the raw rows that a close's chain counted is no longer its snapshot: one of the two was changed.

    The stored row shows which one. It agrees with the snapshot when a transaction was edited or deleted. It agrees with
    the raw rows when the snapshot was altered.
    """
    if suspect.snapshot is None or suspect.based is None:
        raise ValueError(f"{suspect.balance_id} has no close to compare with")
    difference, gross = difference_of(suspect.snapshot.minus(suspect.based))
    sides = {
        "snapshot": suspect.stored == suspect.snapshot.plus(suspect.since),
        "raw rows": suspect.stored == suspect.based.plus(suspect.since),
    }
    return Finding(
        "row_edited_or_removed", "investigate", balance_key=suspect.balance_key, stored=suspect.snapshot,
        proven=suspect.based, difference=difference, gross_difference=gross,
        evidence={
            "close": str(suspect.base_date),
            "stored_row_agrees_with": next((name for name, agrees in sides.items() if agrees), "neither"),
        },
    )  # fmt: skip


def _about_stored_row(suspect: Suspect, cause: str, action: Action, evidence: dict[str, Any]) -> Finding:
    # Never both: the application computes the balance again at its next write, and the difference must not change then.
    difference, gross = difference_of(suspect.drift if any(suspect.drift) else _sum_errors(suspect))
    return Finding(
        cause, action, balance_key=suspect.balance_key, stored=suspect.stored, proven=suspect.proven,
        balance=suspect.balance, inflight_balance=suspect.inflight_balance, difference=difference,
        gross_difference=gross, evidence=evidence,
    )  # fmt: skip


def _sum_errors(suspect: Suspect) -> tuple[Decimal, Decimal]:
    """Stored balance minus (stored credit minus stored debit), posted and inflight."""
    stored = suspect.stored
    return (
        EXACT.subtract(suspect.balance, EXACT.subtract(stored.credit, stored.debit)),
        EXACT.subtract(suspect.inflight_balance, EXACT.subtract(stored.inflight_credit, stored.inflight_debit)),
    )


def _balance_not_credit_minus_debit(suspect: Suspect) -> Judgement | None:
    """The parts are proven, but the stored balance is not credit minus debit; the application's next write mends it."""
    if not suspect.stored_agrees or not any(_sum_errors(suspect)):
        return None
    return "balance_not_credit_minus_debit", "correct", {
        "balance": plain(suspect.balance),
        "credit_minus_debit": plain(EXACT.subtract(suspect.stored.credit, suspect.stored.debit)),
        "inflight_balance": plain(suspect.inflight_balance),
        "inflight_credit_minus_debit": plain(
            EXACT.subtract(suspect.stored.inflight_credit, suspect.stored.inflight_debit)
        ),
    }  # fmt: skip


def _negative_inflight(suspect: Suspect) -> Judgement | None:
    """The row is what its postings prove, and they prove a negative hold.

    More was settled than was held (``over_commit``), or a hold was settled on another balance than it was made on.
    """
    if not suspect.stored_agrees or min(suspect.stored.inflight_credit, suspect.stored.inflight_debit) >= 0:
        return None
    over_committed = suspect.explanations.get("over_committed_hold")
    if over_committed is not None:
        return "over_commit", "investigate", _transactions(over_committed)
    return "negative_inflight", "investigate", suspect.stored.as_evidence()


def _agrees(suspect: Suspect) -> bool:
    return suspect.stored_agrees


def _legacy_rate(suspect: Suspect) -> Judgement | None:
    """An old installation converted at a float rate: the amount that the destination received cannot be proved."""
    found = suspect.explanations.get("legacy_rate")
    return None if _agrees(suspect) or found is None else ("legacy_rate", "declare_unprovable", _transactions(found))


def _wrong_scale(suspect: Suspect) -> Judgement | None:
    """The drift is what amounts in major units cause when taken for minor units, or an amount has too many decimals."""
    found = None if _agrees(suspect) else suspect.explanations.get("wrong_scale")
    if found is not None:
        return "wrong_scale", "correct", _transactions(found)
    found = None if _agrees(suspect) else suspect.explanations.get("not_integral")
    return None if found is None else ("wrong_scale", "declare_unprovable", _transactions(found))


def action_on(cause: str) -> Action:
    """What to do about a transaction that no ledger should hold; a rewrite of a balance row never mends it.

    The hold of an early commit is still queued. Until it is made or rejected there is nothing to settle or release.
    """
    return "wait" if cause == "early_commit" else "investigate"


def _explained_by(cause: str) -> Callable[[Suspect], Judgement | None]:
    def rule(suspect: Suspect) -> Judgement | None:
        found = None if _agrees(suspect) else suspect.explanations.get(cause)
        return None if found is None else (cause, action_on(cause), _transactions(found))

    return rule


def _tampered_stored_row(suspect: Suspect) -> Judgement | None:
    """The close's snapshot and the raw rows agree; only the stored row differs."""
    if _agrees(suspect) or suspect.based is None or not suspect.raw_rows_agree_with_snapshot:
        return None
    return "tampered_stored_row", "correct", {"close": str(suspect.base_date), "drift": suspect.drift.as_evidence()}


def _unexplained(suspect: Suspect) -> Judgement | None:
    """No two witnesses agree, or there is no close to be the third witness."""
    return None if _agrees(suspect) else ("unexplained", "investigate", {"drift": suspect.drift.as_evidence()})


def _transactions(explanation: Explanation) -> dict[str, Any]:
    return {"transaction_count": explanation.row_count, "transaction_ids": list(explanation.transaction_ids)}


#: About the stored row; the first rule that applies gives the cause. The most certain causes come first.
RULES: Final[tuple[Callable[[Suspect], Judgement | None], ...]] = (
    _balance_not_credit_minus_debit,
    _negative_inflight,
    _legacy_rate,
    _wrong_scale,
    _explained_by("early_commit"),  # settles a queued hold, not made yet: it took from other holds
    _explained_by("orphan_commit"),  # its parent holds nothing: it took from other holds
    _explained_by("over_commit"),  # the stored hold stopped at zero, the postings are below
    _explained_by("duplicate_reference"),  # recorded twice, applied once
    _explained_by("cross_currency"),  # recorded between two currencies, not applied
    _tampered_stored_row,
    _unexplained,
)
