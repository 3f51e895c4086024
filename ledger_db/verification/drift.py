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

from ledger_db.close.cluster import find_cluster
from ledger_db.close.cut import base_parameters, cut_parameters
from ledger_db.close.runs import Run, find_run
from ledger_db.core.amounts import EXACT, Parts, plain
from ledger_db.core.key_ranges import KeyRange
from ledger_db.errors import Hint, VerificationNotOpen
from ledger_db.postings.rules import statement
from ledger_db.server.catalogue import has_unique_column
from ledger_db.server.connections import set_local, without_time_limit
from ledger_db.verification.causes import Explanation, Finding, Suspect, action_on, judge
from ledger_db.verification.sweeps import Tally, Verification, base_of, find_verification


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
    base = base_of(connection, verification)
    rows = _compare_stored(connection, verification, base, keys)
    suspects = [suspect_of(row) for row in rows if row.balance_key is not None]
    findings = [
        finding for suspect in _with_evidence(connection, verification, base, suspects) for finding in judge(suspect)
    ]
    return BatchCheck(verification, rows[0].balance_count, rows[0].gross_volume, findings)


def _compare_stored(
    connection: Connection, verification: Verification, base: Run | None, keys: KeyRange
) -> Sequence[Row[Any]]:
    # fresh sums are not in the statistics yet: planned for one row, it would be a nested loop
    set_local(connection, "enable_nestloop", "off")
    rows = connection.execute(
        statement(connection, "verification.compare_stored"),
        {
            "verification_id": verification.verification_id,
            "first_key": keys.first_key,
            "last_key": keys.last_key,
            "base_date": None if base is None else base.business_date,
            "from_genesis": verification.scope == "from-genesis",
            **cut_parameters(connection, verification.cut),
            **verification.restriction,
        },
    ).all()
    set_local(connection, "enable_nestloop", "on")
    return rows


def _with_evidence(
    connection: Connection, verification: Verification, base: Run | None, suspects: Sequence[Suspect]
) -> list[Suspect]:
    """The differing balances with the evidence that the rules read. Cost: their histories, by index."""
    if not suspects:
        return []
    if base is None:
        suspects = [replace(suspect, snapshot=None) for suspect in suspects]
    else:
        raw = _raw_proof(connection, verification, suspects)
        # A balance made after the close has neither a snapshot nor postings before it: both witnesses are zero.
        # Compare with the close's figures in every scope, so that the difference is identical.
        suspects = [
            replace(
                suspect, base_date=base.business_date, based=raw[suspect.balance_id].minus(suspect.since),
                proven=suspect.snapshot.plus(suspect.since),
            )
            for suspect in suspects
            if suspect.snapshot is not None
        ]  # fmt: skip
    explanations = match_explanations(connection, suspects, base)
    return [replace(suspect, explanations=explanations.get(suspect.balance_id, {})) for suspect in suspects]


def suspect_of(row: Row[Any]) -> Suspect:
    """A compared row of ``compare_stored.sql`` or ``recalculate.sql``, without further evidence."""
    return Suspect(
        balance_key=row.balance_key,
        balance_id=row.balance_id,
        currency=row.currency,
        live_key=row.live_key,
        live_currency=row.live_currency,
        balance=row.stored_balance,
        inflight_balance=row.stored_inflight_balance,
        stored=Parts.of_row(row, "stored_"),
        proven=Parts.of_row(row, "proven_"),
        since=Parts.of_row(row, "since_"),
        snapshot=Parts.of_row(row, "snapshot_"),
    )


def _raw_proof(connection: Connection, verification: Verification, suspects: Sequence[Suspect]) -> dict[str, Parts]:
    """What the raw rows prove from genesis on. That scope has just summed them; for the other they are read."""
    if verification.scope == "from-genesis":
        return {suspect.balance_id: suspect.proven for suspect in suspects}
    return _raw_sums(connection, suspects)


def _raw_sums(connection: Connection, suspects: Sequence[Suspect]) -> dict[str, Parts]:
    rows = connection.execute(statement(connection, "verification.raw_sums"), _names_of(suspects))
    return {row.balance_id: Parts.of_row(row) for row in rows}


def _names_of(suspects: Sequence[Suspect]) -> dict[str, Any]:
    return {
        "balance_keys": [suspect.balance_key for suspect in suspects],
        "balance_ids": [suspect.balance_id for suspect in suspects],
    }


def match_explanations(
    connection: Connection, suspects: Sequence[Suspect], base: Run | None
) -> dict[str, dict[str, Explanation]]:
    """The known mistakes that would account for each balance's drift. Cost: their histories, by index.

    ``base``: the newest close; a queued hold that its chain has not counted may still be made.
    """
    rows = connection.execute(
        statement(connection, "verification.match_explanations"),
        {
            **_names_of(suspects),
            "credits": [suspect.drift.credit for suspect in suspects],
            "debits": [suspect.drift.debit for suspect in suspects],
            "inflight_credits": [suspect.drift.inflight_credit for suspect in suspects],
            "inflight_debits": [suspect.drift.inflight_debit for suspect in suspects],
            "cluster_id": find_cluster(connection),
            **base_parameters(connection, base),
        },
    )
    found: dict[str, dict[str, Explanation]] = {}
    for row in rows:
        found.setdefault(row.balance_id, {})[row.explanation] = Explanation(row.row_count, tuple(row.transaction_ids))
    return found


def check_transactions(connection: Connection, verification_id: int) -> list[Finding]:
    """Transactions that no ledger should hold: orphan and early commits, over-commits, duplicates, two currencies.

    Checks those that no finished verification has checked; from genesis all, and names those that no close has counted
    or will. A restricted verification is about balances and checks none. Reads only.

    Raises:
        UnknownVerification: there is none of this id.
    """
    verification = find_verification(connection, verification_id)
    if verification.is_restricted:
        return []
    without_time_limit(connection)
    set_local(connection, "jit", "off")  # how many rows sets of keys name is not in the statistics
    rows = connection.execute(
        statement(connection, "verification.check_transactions"),
        {
            "reference_is_unique": has_unique_column(connection, "blnk.transactions", "reference"),
            **cut_parameters(connection, verification.cut),
            **base_parameters(connection, base_of(connection, verification)),
            **base_parameters(connection, _checked_run(connection, verification), "from"),
        },
    )
    return _never_counted_ones(connection, verification) + [
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


def _never_counted_ones(connection: Connection, verification: Verification) -> list[Finding]:
    """Rows at or below the newest close's highest key that it has not counted and that no close will look at."""
    base = base_of(connection, verification)
    if base is None or verification.scope != "from-genesis":
        return []
    return [
        Finding(
            "never_counted", "investigate", transaction_key=row.transaction_key, difference=f"{plain(row.amount)}|0",
            gross_difference=EXACT.abs(row.amount),
            evidence={
                "currency": row.currency, "amount": plain(row.amount), "allowed": "0",
                "transaction_ids": [row.transaction_id], "close": str(base.business_date),
            },
        )
        for row in _never_counted(connection, verification, base)
    ]  # fmt: skip


def _never_counted(connection: Connection, verification: Verification, base: Run) -> Sequence[Row[Any]]:
    return connection.execute(
        statement(connection, "verification.never_counted"),
        {**cut_parameters(connection, verification.cut), **base_parameters(connection, base)},
    ).all()


def _checked_run(connection: Connection, verification: Verification) -> Run | None:
    """The close whose rows were checked before."""
    return None if verification.checked_run_id is None else find_run(connection, verification.checked_run_id)
