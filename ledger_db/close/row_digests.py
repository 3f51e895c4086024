"""Digests of the rows that a run counted, per piece and business date: they show later that a row was changed.

A digest is a SHA-256 over the rows in key order: a forged one is not to be had. It is stored with the piece, from the
same rows. Computed again at any time from the rows of the same keys, it differs where a transaction was edited or
removed.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from datetime import date
from decimal import Decimal

from sqlalchemy import Connection, Table, select

from ledger_db.close import tables
from ledger_db.close.row_checksums import RowChecksum, checksum_rows, stored_checksums
from ledger_db.close.runs import Run
from ledger_db.postings.rules import statement
from ledger_db.server.connections import in_memory


@dataclass(frozen=True)
class RowDigest:
    """The rows of one piece on one business date, those of statuses that never count included; minor units."""

    piece: int
    effective_date: date
    transaction_count: int
    posted_amount: Decimal
    held_amount: Decimal
    digest: str


Digests = dict[tuple[int, date], RowDigest]


def digest_rows(connection: Connection, run: Run) -> Digests:
    """A run's rows as they are now, by piece and business date. Cost: those rows, by primary key, a piece at a time."""
    in_memory(connection)
    keys = tables.run_keys
    pieces = connection.scalars(
        select(keys.c.piece).where(keys.c.run_id == run.run_id, keys.c.key_set == "counted").distinct()
    ).all()
    rows = (
        row
        for piece in sorted(pieces)
        for row in connection.execute(
            statement(connection, "close.digest_rows"), {"run_id": run.run_id, "piece": piece}
        )
    )
    return {(row.piece, row.effective_date): RowDigest(*row) for row in rows}


def stored_digests(connection: Connection, run: Run) -> Digests:
    """What a run stored of its rows, by piece and business date."""
    return _stored_in(connection, tables.row_digests, run)


def later_digests(connection: Connection, run: Run) -> Digests:
    """What was stored of the rows of an old close since (``later_digests.py``)."""
    return _stored_in(connection, tables.later_digests, run)


def _stored_in(connection: Connection, stored: Table, run: Run) -> Digests:
    rows = connection.execute(
        select(*(stored.c[field.name] for field in fields(RowDigest))).where(stored.c.run_id == run.run_id)
    )
    return {(row.piece, row.effective_date): RowDigest(*row) for row in rows}


def digests_then_and_now(connection: Connection, run: Run) -> tuple[Digests, Digests]:
    """The digests of a close's rows as it stored them, and as the rows are now."""
    if run.planned_at is not None:
        return stored_digests(connection, run), digest_rows(connection, run)
    if later := later_digests(connection, run):
        return later, digest_rows(connection, run)
    return _as_digests(stored_checksums(connection, run)), _as_digests(checksum_rows(connection, run))


def _as_digests(checksums: Mapping[date, RowChecksum]) -> Digests:
    """Checksums of a close from before rows were counted in pieces."""
    return {
        (0, day): RowDigest(0, day, each.transaction_count, each.posted_amount, each.held_amount, each.checksum)
        for day, each in checksums.items()
    }
