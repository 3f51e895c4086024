"""Checksums over the raw rows of each close, by effective business date: what tells later that a row was changed.

Stored with the activity, from the same rows. Taken again at any time, they differ on the dates on which a transaction
was edited, deleted, or slipped in; on those dates the collected activity then names the balances.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date
from decimal import Decimal

from sqlalchemy import Connection, text

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


def read_checksums(connection: Connection, run: Run) -> list[RowChecksum]:
    """A run's raw rows as they are now, by effective business date. Cost: those rows, by index."""
    return [
        RowChecksum(*row)
        for row in connection.execute(statement(connection, "close.checksum_rows"), cut_parameters(connection, run))
    ]


def store_checksums(connection: Connection, run: Run) -> None:
    """Store a close's checksums; an open run's only."""
    checksums = read_checksums(connection, run)
    if checksums:
        connection.execute(
            text(
                "INSERT INTO ledger_eod.row_checksums (run_id, effective_date, transaction_count, posted_amount, "
                "held_amount, checksum) VALUES (:run_id, :effective_date, :transaction_count, :posted_amount, "
                ":held_amount, :checksum)"
            ),
            [{"run_id": run.run_id} | vars(checksum) for checksum in checksums],
        )


def closes_to_check(connection: Connection, system_identifier: str) -> list[int]:
    """The certified closes whose cuts can still be told on this cluster, oldest first."""
    return list(
        connection.scalars(
            text(
                "SELECT run_id FROM ledger_eod.runs WHERE kind = 'close' AND status = 'certified' "
                "AND system_identifier = :system_identifier ORDER BY run_id"
            ),
            {"system_identifier": system_identifier},
        )
    )
