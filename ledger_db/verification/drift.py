"""Drift: compares stored balance rows with what their postings prove, one range of balances at one instant.

Nothing here waits for writers or makes them wait. A transaction that is not committed is neither in the stored row nor
in the postings that the same statement sees. A future-dated one is in both. Queued work is in neither.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from decimal import Decimal
from typing import Any

from sqlalchemy import Connection, Row

from ledger_db.close.cut import cut_of
from ledger_db.core.amounts import EXACT, NO_PARTS, Parts, plain
from ledger_db.core.key_ranges import KeyRange
from ledger_db.errors import Hint, VerificationNotOpen
from ledger_db.postings.rules import statement
from ledger_db.server.catalogue import has_unique_column
from ledger_db.server.connections import set_local, without_time_limit
from ledger_db.verification.causes import Explanation, Finding, Suspect, action_on, judge
from ledger_db.verification.sweeps import Tally, Verification, base_date_of, find_verification


@dataclass(frozen=True)
class BatchCheck:
    """The findings on one range of balances. ``gross_volume``: credits plus debits that its postings prove."""

    verification: Verification
    balance_count: int
    gross_volume: Decimal
    findings: list[Finding]

    @property
    def tally(self) -> Tally:
        """One batch with its balances; its findings are counted where they are stored."""
        return Tally(batch_count=1, balance_count=self.balance_count, gross_volume=self.gross_volume)


def verify_batch(connection: Connection, verification_id: int, keys: KeyRange) -> BatchCheck:
    """Compare the stored rows of a range with what proves them, and determine the cause of each difference.

    The comparison is one statement. The causes are read by further ones: give it a transaction in which all statements
    see the same instant. Reads only, locks nothing.

    Raises:
        UnknownVerification: there is none of this id.
        VerificationNotOpen: its sums are not collected, or it has ended and they are deleted.
    """
    verification = find_verification(connection, verification_id)
    if verification.status != "open" or verification.collected_at is None:
        raise VerificationNotOpen(f"{verification.name} has no sums to prove from", hint=Hint.start_verification)
    rows = _compare_stored(connection, verification, keys)
    differing = [row for row in rows if row.balance_key is not None]
    findings = [
        finding for suspect in _with_evidence(connection, verification, differing) for finding in judge(suspect)
    ]
    return BatchCheck(verification, rows[0].balance_count, rows[0].gross_volume, findings)


def _compare_stored(connection: Connection, verification: Verification, keys: KeyRange) -> Sequence[Row[Any]]:
    # fresh sums are not in the statistics yet: planned for one row, it would be a nested loop
    set_local(connection, "enable_nestloop", "off")
    rows = connection.execute(
        statement(connection, "verification.compare_stored"),
        {
            "verification_id": verification.verification_id,
            "cut": verification.cut,
            "first_key": keys.first_key,
            "last_key": keys.last_key,
            "base_date": base_date_of(connection, verification),
            "from_genesis": verification.scope == "from-genesis",
            **verification.restriction,
        },
    ).all()
    set_local(connection, "enable_nestloop", "on")
    return rows


def _with_evidence(connection: Connection, verification: Verification, rows: Sequence[Row[Any]]) -> list[Suspect]:
    """The differing balances with the evidence that the rules read. Cost: their histories, by index."""
    if not rows:
        return []
    suspects = [suspect_of(row) for row in rows]
    if verification.base_run_id is not None:
        base_date = base_date_of(connection, verification)
        based = _based_sums(connection, verification, suspects)
        # A balance made after the close has neither a snapshot nor postings before it: both witnesses are zero.
        # Compare with the close's figures in every scope, so that the difference is identical.
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
    explanations = match_explanations(connection, suspects, base_cut)
    return [replace(suspect, explanations=explanations.get(suspect.balance_id, {})) for suspect in suspects]


def suspect_of(row: Row[Any]) -> Suspect:
    """A compared row of ``compare_stored.sql`` or ``recalculate.sql``, without further evidence."""
    return Suspect(
        balance_key=row.balance_key,
        balance_id=row.balance_id,
        currency=row.currency,
        balance=row.stored_balance,
        inflight_balance=row.stored_inflight_balance,
        stored=Parts.of_row(row, "stored_"),
        proven=Parts.of_row(row, "proven_"),
        since=Parts.of_row(row, "since_"),
        snapshot=Parts.of_row(row, "snapshot_"),
    )


def _based_sums(connection: Connection, verification: Verification, suspects: Sequence[Suspect]) -> dict[str, Parts]:
    """The sums of the raw rows in the base close's cut. From genesis the proof has them; otherwise they are read."""
    if verification.scope == "from-genesis":
        return {suspect.balance_id: suspect.proven.minus(suspect.since) for suspect in suspects}
    rows = connection.execute(
        statement(connection, "verification.based_sums"),
        {
            "balance_ids": [suspect.balance_id for suspect in suspects],
            **cut_of(connection, verification.base_run_id, "base"),
        },
    )
    return {row.balance_id: Parts.of_row(row) for row in rows}


def match_explanations(
    connection: Connection, suspects: Sequence[Suspect], base_cut: str | None
) -> dict[str, dict[str, Explanation]]:
    """The known mistakes that would account for each balance's drift. Cost: their histories, by index.

    ``base_cut``: the newest close's; a queued hold that was recorded since may still be made.
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
    """Transactions that no ledger should hold: orphan and early commits, over-commits, duplicates, two currencies.

    Checks those that no finished verification has checked; from genesis all. A restricted verification is about
    balances and checks none. Reads only.

    Raises:
        UnknownVerification: there is none of this id.
    """
    verification = find_verification(connection, verification_id)
    if verification.is_restricted:
        return []
    without_time_limit(connection)
    rows = connection.execute(
        statement(connection, "verification.check_transactions"),
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
