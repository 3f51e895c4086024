"""Checksums over the raw rows of each close, by effective business date: they show later that a row was changed.

Stored with the activity, from the same rows. Computed again at any time, they differ on the dates on which a
transaction was edited, deleted, or slipped in; on those dates the collected activity then names the balances.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from datetime import date
from decimal import Decimal

from sqlalchemy import Connection, insert, select

from ledger_db.close import tables
from ledger_db.close.cut import cut_parameters
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
    """A run's raw rows as they are now, by effective business date. Cost: those rows, by index."""
    rows = connection.execute(statement(connection, "close.checksum_rows"), cut_parameters(connection, run))
    return {row.effective_date: RowChecksum(*row) for row in rows}


def store_checksums(connection: Connection, run: Run) -> None:
    """Store a close's checksums; an open run's only."""
    checksums = checksum_rows(connection, run)
    if checksums:
        connection.execute(
            insert(tables.row_checksums),
            [{"run_id": run.run_id} | vars(checksum) for checksum in checksums.values()],
        )


def stored_checksums(connection: Connection, run: Run) -> dict[date, RowChecksum]:
    """What a close stored of its raw rows, by effective business date."""
    stored = tables.row_checksums
    rows = connection.execute(
        select(*(stored.c[field.name] for field in fields(RowChecksum))).where(stored.c.run_id == run.run_id)
    )
    return {row.effective_date: RowChecksum(*row) for row in rows}


def closes_to_check(connection: Connection, system_identifier: str) -> list[int]:
    """The certified closes whose cuts still mean something on this cluster, oldest first."""
    runs = tables.runs
    return list(
        connection.scalars(
            select(runs.c.run_id)
            .where(runs.c.kind == "close", runs.c.status == "certified", runs.c.system_identifier == system_identifier)
            .order_by(runs.c.run_id)
        )
    )
