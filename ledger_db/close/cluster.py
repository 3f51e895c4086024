"""Restored copies: transaction ids start over in another cluster; what they meant in the old one is forgotten."""

from __future__ import annotations

from typing import Any

from sqlalchemy import Connection, Row, Text, cast, func, select, text

from ledger_db.books.indexes import RECORDED_INDEXES, TRANSACTION_INDEXES
from ledger_db.books.tables import transactions
from ledger_db.server.connections import without_time_limit


def first_foreign_record(connection: Connection) -> Row[Any] | None:
    """A transaction recorded by a database transaction that this cluster has not reached; None in a sound ledger.

    Has ``transaction_id``, ``recorded_xid`` and ``next_xid``, the first id that is not given out yet. One index probe:
    what is visible here was recorded earlier, so a later number comes from elsewhere.
    """
    next_xid = func.pg_snapshot_xmax(func.pg_current_snapshot())
    return connection.execute(
        select(
            transactions.c.transaction_id,
            cast(transactions.c.recorded_xid, Text).label("recorded_xid"),
            cast(next_xid, Text).label("next_xid"),
        )
        .where(transactions.c.recorded_xid >= next_xid)
        .order_by(transactions.c.recorded_xid)
        .limit(1)
    ).one_or_none()


def forget_recorded(connection: Connection) -> None:
    """Mark every transaction as recorded before installation.

    The column is dropped and added again, which rewrites no row. Takes an exclusive lock on ``blnk.transactions`` for
    as long as five indexes over it take to build; writers wait. The next run has no base and proves from the first
    posting on.
    """
    without_time_limit(connection)
    connection.execute(text("LOCK TABLE blnk.transactions IN ACCESS EXCLUSIVE MODE"))
    connection.execute(text("ALTER TABLE blnk.transactions DROP COLUMN recorded_xid"))
    connection.execute(text("ALTER TABLE blnk.transactions ADD COLUMN recorded_xid xid8"))
    connection.execute(text("ALTER TABLE blnk.transactions ALTER COLUMN recorded_xid SET DEFAULT pg_current_xact_id()"))
    for name in RECORDED_INDEXES:
        connection.execute(text(f"CREATE INDEX {name} ON blnk.transactions {TRANSACTION_INDEXES[name]}"))
