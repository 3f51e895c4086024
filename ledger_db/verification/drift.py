"""Drift: stored balance rows against what their postings prove, one range of balances at one instant.

Nothing here waits for writers or keeps them waiting. A transaction that is not committed is not in the stored row that
the same statement sees; a future-dated one is in both; queued work is in neither.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from decimal import Decimal
from typing import Any

from sqlalchemy import Connection, Row, text

from ledger_db.close.cut import cut_of
from ledger_db.core.amounts import EXACT, NO_PARTS, Parts, plain
from ledger_db.core.key_ranges import KeyRange
from ledger_db.errors import VerificationNotOpen
from ledger_db.postings.rules import statement
from ledger_db.server.catalogue import has_unique_column
from ledger_db.verification.causes import Explanation, Finding, Suspect, action_on, judge
from ledger_db.verification.sweeps import Verification, base_date_of, find_verification


@dataclass(frozen=True)
class BatchVerdict:
    """What one range of balances came to. ``gross_volume``: credits plus debits that its postings prove."""

    verification: Verification
    balance_count: int
    gross_volume: Decimal
    findings: list[Finding]


def verify_batch(connection: Connection, verification_id: int, keys: KeyRange) -> BatchVerdict:
    """Compare the stored rows of a range with what proves them, and say why they differ where they do.

    The comparison is one statement. The causes are read by further ones: give it a transaction in which all statements
    see the same instant. Reads only, locks nothing.

    Raises:
        VerificationNotOpen: its sums are not collected, or it ended and they are gone.
    """
    verification = find_verification(connection, verification_id)
    if verification.status != "open" or verification.collected_at is None:
        raise VerificationNotOpen(f"{verification.name} has no sums to prove from; start a new one")
    # fresh sums are not in the statistics yet, and a nested loop chosen for "one row" is the bad plan here
    connection.execute(text("SET LOCAL enable_nestloop = off"))
    rows = connection.execute(
        statement(connection, "verification.compare_stored"),
        {
            "verification_id": verification_id,
            "cut": verification.cut,
            "first_key": keys.first_key,
            "last_key": keys.last_key,
            "base_date": base_date_of(connection, verification),
            "from_genesis": verification.scope == "from-genesis",
            **verification.restriction,
        },
    ).all()
    connection.execute(text("SET LOCAL enable_nestloop = on"))
    differing = [row for row in rows if row.balance_key is not None]
    findings = [
        finding for suspect in _with_evidence(connection, verification, differing) for finding in judge(suspect)
    ]
    return BatchVerdict(verification, rows[0].balance_count, rows[0].gross_volume, findings)


def _with_evidence(connection: Connection, verification: Verification, rows: Sequence[Row[Any]]) -> list[Suspect]:
    """The differing balances with all that the rules need to know of them. Cost: their histories, by index."""
    if not rows:
        return []
    suspects = [suspect_of(row) for row in rows]
    if verification.base_run_id is not None:
        base_date = base_date_of(connection, verification)
        based = _based_sums(connection, verification, suspects)
        # a balance made after the close has neither snapshot nor postings before it: both witnesses say zero. What is
        # said of the stored row is said of the close's figures in every scope, so that it is the same difference.
        suspects = [
            replace(
                suspect, base_date=base_date, based=based.get(suspect.balance_id, NO_PARTS),
                proven=suspect.snapshot.plus(suspect.since),
            )
            for suspect in suspects
            if suspect.snapshot is not None
        ]  # fmt: skip
    else:
        suspects = [replace(suspect, snapshot=None) for suspect in suspects]
    base_cut = cut_of(connection, verification.base_run_id, "base")["base_cut"]
    explanations = explanations_of(connection, suspects, base_cut)
    return [replace(suspect, explanations=explanations.get(suspect.balance_id, {})) for suspect in suspects]


def suspect_of(row: Row[Any]) -> Suspect:
    """A compared row of ``compare_stored.sql`` or ``recalculate_balance.sql``, without further evidence."""

    def parts(prefix: str) -> Parts:
        return Parts(
            *(
                getattr(row, f"{prefix}_{name}")
                for name in ("credit_balance", "debit_balance", "inflight_credit_balance", "inflight_debit_balance")
            )
        )

    return Suspect(
        balance_key=row.balance_key,
        balance_id=row.balance_id,
        currency=row.currency,
        balance=row.stored_balance,
        inflight_balance=row.stored_inflight_balance,
        stored=parts("stored"),
        proven=parts("proven"),
        since=parts("since"),
        snapshot=parts("snapshot"),
    )


def _based_sums(connection: Connection, verification: Verification, suspects: Sequence[Suspect]) -> dict[str, Parts]:
    """What the raw rows in the base close's cut add up to. From genesis the proof has it; else it is summed here."""
    if verification.scope == "from-genesis":
        return {suspect.balance_id: suspect.proven.minus(suspect.since) for suspect in suspects}
    rows = connection.execute(
        statement(connection, "verification.sum_based"),
        {
            "balance_ids": [suspect.balance_id for suspect in suspects],
            **cut_of(connection, verification.base_run_id, "base"),
        },
    )
    return {row[0]: Parts(*row[1:]) for row in rows}


def explanations_of(
    connection: Connection, suspects: Sequence[Suspect], base_cut: str | None
) -> dict[str, dict[str, Explanation]]:
    """The known mistakes that would account for each balance's drift. Cost: their histories, by index.

    ``base_cut``: the newest close's; a queued hold that was recorded since may still come.
    """
    rows = connection.execute(
        statement(connection, "verification.match_explanations"),
        {
            "balance_ids": [suspect.balance_id for suspect in suspects],
            "credits": [suspect.drift.credit for suspect in suspects],
            "debits": [suspect.drift.debit for suspect in suspects],
            "inflight_credits": [suspect.drift.inflight_credit for suspect in suspects],
            "inflight_debits": [suspect.drift.inflight_debit for suspect in suspects],
            "base_cut": base_cut,
        },
    )
    found: dict[str, dict[str, Explanation]] = {}
    for row in rows:
        found.setdefault(row.balance_id, {})[row.explanation] = Explanation(row.row_count, tuple(row.transaction_ids))
    return found


def check_transactions(connection: Connection, verification_id: int) -> list[Finding]:
    """Transactions that no ledger should hold: orphan and early commits, over-commits, duplicates, two
    currencies.

    Looks at those that no finished verification has looked at yet; from genesis at all. A restricted verification is
    about balances and looks at none. Reads only.
    """
    verification = find_verification(connection, verification_id)
    if verification.is_restricted:
        return []
    connection.execute(text("SET LOCAL statement_timeout = 0"))
    rows = connection.execute(
        statement(connection, "verification.find_suspect_transactions"),
        {
            "cut": verification.cut,
            "reference_is_unique": has_unique_column(connection, "blnk.transactions", "reference"),
            "base_cut": cut_of(connection, verification.base_run_id, "base")["base_cut"],
            **cut_of(connection, verification.checked_run_id, "from"),
        },
    )
    return [
        Finding(
            row.cause, action_on(row.cause), transaction_key=row.transaction_key,
            difference=f"{plain(row.stored)}|{plain(row.proven)}",
            gross_difference=EXACT.subtract(row.stored, row.proven),
            evidence={
                "currency": row.currency, "amount": plain(row.stored), "allowed": plain(row.proven),
                "transaction_ids": list(row.transaction_ids),
            },
        )
        for row in rows
    ]  # fmt: skip
