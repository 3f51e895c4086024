"""Causes: what a difference comes from, decided by ordered rules, each with its evidence and what to do about it.

The stored row of a balance is one witness. The raw rows are another, and where there is a close, its snapshot plus
what came since is a third. Who of the three stands alone says most; known mistakes of applications say the rest.
Pure: this module reads nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import date
from decimal import Decimal
from typing import Any, Final, Literal

from ledger_db.core.amounts import EXACT, Parts, difference_of, plain

Action = Literal["correct", "investigate", "wait", "declare_unprovable"]


@dataclass(frozen=True)
class Explanation:
    """A known mistake that would account for a balance's drift, and the transactions that could have met it."""

    row_count: int
    transaction_ids: tuple[str, ...]


@dataclass(frozen=True)
class Suspect:
    """A balance on which witnesses differ, at one instant.

    ``proven``: what its postings prove. ``since``: the part of it that is not in the base close's cut. ``snapshot``:
    the base close's figures. ``based``: what the raw rows in that close's cut add up to. Both None without a close.
    """

    balance_key: int
    balance_id: str
    currency: str
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
    def drift(self) -> Parts:
        """Stored minus proven."""
        return self.stored.minus(self.proven)

    @property
    def raw_rows_agree_with_snapshot(self) -> bool:
        """Whether the base close still is what its raw rows add up to; true without one."""
        return self.snapshot == self.based

    @property
    def stored_agrees(self) -> bool:
        """Whether the stored row is what at least one other witness says."""
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
        """How much of the posted volume stays without explanation; minor units."""
        if self.cause != "unexplained" or self.stored is None or self.proven is None:
            return Decimal(0)
        drift = self.stored.minus(self.proven)
        return EXACT.add(drift.credit.copy_abs(), drift.debit.copy_abs())


def judge(suspect: Suspect) -> list[Finding]:
    """Every finding about one balance: on its history, and by the first rule that applies on its stored row."""
    findings = []
    if not suspect.raw_rows_agree_with_snapshot:
        findings.append(_row_edited_or_removed(suspect))
    for rule in RULES:
        verdict = rule(suspect)
        if verdict is not None:
            return [*findings, _about_stored_row(suspect, *verdict)]
    return findings


Verdict = tuple[str, Action, dict[str, Any]] | None


def _row_edited_or_removed(suspect: Suspect) -> Finding:
    """The raw rows of a close's cut no longer add up to its snapshot: one of the two was changed afterwards.

    Whom the stored row agrees with tells which: with the snapshot, when a transaction was edited or deleted; with the
    raw rows, when the snapshot was altered or a row moved across the cut by an edit of its effective date.
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
    # Not both: the application recomputes the sum from the parts at its next write, and the drift stays the same one.
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


def _balance_not_credit_minus_debit(suspect: Suspect) -> Verdict:
    """The parts are proven, their difference is not what is stored. The application overwrites it at the next write."""
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


def _negative_inflight(suspect: Suspect) -> Verdict:
    """The row is what its postings prove, and they prove a negative hold.

    More was settled than a hold had (``over_commit``), or a hold was settled on another balance than it was made on.
    """
    if not suspect.stored_agrees or min(suspect.stored.inflight_credit, suspect.stored.inflight_debit) >= 0:
        return None
    over_committed = suspect.explanations.get("over_committed_hold")
    if over_committed is not None:
        return "over_commit", "investigate", _transactions(over_committed)
    return "negative_inflight", "investigate", suspect.stored.as_evidence()


def _agrees(suspect: Suspect) -> bool:
    return suspect.stored_agrees


def _legacy_rate(suspect: Suspect) -> Verdict:
    """An old installation converted at a float rate: what the destination got then cannot be proved now."""
    found = suspect.explanations.get("legacy_rate")
    return None if _agrees(suspect) or found is None else ("legacy_rate", "declare_unprovable", _transactions(found))


def _wrong_scale(suspect: Suspect) -> Verdict:
    """The drift is that of amounts in major units taken for minor ones, or an amount has too many decimals."""
    found = None if _agrees(suspect) else suspect.explanations.get("wrong_scale")
    if found is not None:
        return "wrong_scale", "correct", _transactions(found)
    found = None if _agrees(suspect) else suspect.explanations.get("not_integral")
    return None if found is None else ("wrong_scale", "declare_unprovable", _transactions(found))


def action_on(cause: str) -> Action:
    """What to do about a transaction that no ledger should hold: nothing that a rewrite of a balance row could mend.

    An early commit's hold is to come or to be refused yet, and before that there is nothing to settle or to release.
    """
    return "wait" if cause == "early_commit" else "investigate"


def _explained_by(cause: str) -> Callable[[Suspect], Verdict]:
    def rule(suspect: Suspect) -> Verdict:
        found = None if _agrees(suspect) else suspect.explanations.get(cause)
        return None if found is None else (cause, action_on(cause), _transactions(found))

    return rule


def _tampered_stored_row(suspect: Suspect) -> Verdict:
    """Two witnesses, the close's snapshot and the raw rows, say the same, and the stored row stands alone."""
    if _agrees(suspect) or suspect.based is None or not suspect.raw_rows_agree_with_snapshot:
        return None
    return "tampered_stored_row", "correct", {"close": str(suspect.base_date), "drift": suspect.drift.as_evidence()}


def _unexplained(suspect: Suspect) -> Verdict:
    """No two witnesses agree, or there is no close to be the third."""
    return None if _agrees(suspect) else ("unexplained", "investigate", {"drift": suspect.drift.as_evidence()})


def _transactions(explanation: Explanation) -> dict[str, Any]:
    return {"transaction_count": explanation.row_count, "transaction_ids": list(explanation.transaction_ids)}


#: About the stored row; the first that applies gives the cause. From what is certain to what is only left over.
RULES: Final[tuple[Callable[[Suspect], Verdict], ...]] = (
    _balance_not_credit_minus_debit,
    _negative_inflight,
    _legacy_rate,
    _wrong_scale,
    _explained_by("early_commit"),  # taken off other holds through a queued one that is not carried out yet
    _explained_by("orphan_commit"),  # taken off a hold through a parent that holds nothing
    _explained_by("over_commit"),  # the stored hold stopped at zero, the postings went below
    _explained_by("duplicate_reference"),  # recorded twice, applied once
    _explained_by("cross_currency"),  # recorded between two currencies, not applied
    _tampered_stored_row,
    _unexplained,
)
