"""Checksums over the raw rows of closes from before rows were counted by their keys, by effective business date.

They add up hashes, which can be forged; closes since have digests instead (``row_digests``). They are only compared.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from datetime import date
from decimal import Decimal

from sqlalchemy import Connection, exists, select

from ledger_db.close import tables
from ledger_db.close.runs import Run
from ledger_db.postings.rules import statement


@dataclass(frozen=True)
class RowChecksum:
    """The raw rows of one run on one effective business date; minor units."""

    effective_date: date
    transaction_count: int
    posted_amount: Decimal
    held_amount: Decimal
    checksum: str


def checksum_rows(connection: Connection, run: Run) -> dict[date, RowChecksum]:
    """A run's raw rows as they are now, by effective business date. Cost: those rows, by primary key."""
    rows = connection.execute(statement(connection, "close.checksum_rows"), {"run_id": run.run_id})
    return {row.effective_date: RowChecksum(*row) for row in rows}


def stored_checksums(connection: Connection, run: Run) -> dict[date, RowChecksum]:
    """What a close stored of its raw rows, by effective business date."""
    stored = tables.row_checksums
    rows = connection.execute(
        select(*(stored.c[field.name] for field in fields(RowChecksum))).where(stored.c.run_id == run.run_id)
    )
    return {row.effective_date: RowChecksum(*row) for row in rows}


def has_known_keys(connection: Connection, run: Run) -> bool:
    """Whether it is known which rows a run counted. Not of a close that was in another cluster before keys were stored.

    A run that was counted by its keys has them; where they are gone its digests tell.
    """
    if run.planned_at is not None:
        return True
    keys, activity = tables.run_keys, tables.activity
    has_keys = exists().where(keys.c.run_id == run.run_id, keys.c.key_set == "counted")
    has_activity = exists().where(activity.c.run_id == run.run_id)
    return bool(connection.scalar(select(has_keys | ~has_activity)))
