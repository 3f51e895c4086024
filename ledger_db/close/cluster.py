"""Restored copies: transaction ids start over in another cluster, so what they said about the old one is forgotten."""

from __future__ import annotations

from typing import Any

from sqlalchemy import Connection, Row, text

from ledger_db.books.indexes import RECORDED_INDEXES, TRANSACTION_INDEXES


def first_foreign_record(connection: Connection) -> Row[Any] | None:
    """A transaction recorded by a database transaction that this cluster has not reached; None in a sound ledger.

    Has ``transaction_id``, ``recorded_xid`` and ``next_xid``, the first id that is not given out yet. One index probe:
    what is visible here was recorded earlier, so a later number comes from elsewhere.
    """
    return connection.execute(
        text(
            "SELECT transaction_id, recorded_xid::text AS recorded_xid, "
            "pg_snapshot_xmax(pg_current_snapshot())::text AS next_xid FROM blnk.transactions "
            "WHERE recorded_xid >= pg_snapshot_xmax(pg_current_snapshot()) ORDER BY recorded_xid LIMIT 1"
        )
    ).one_or_none()


def forget_recorded(connection: Connection) -> None:
    """Mark every transaction as recorded before installation.

    The column is dropped and made anew, which rewrites no row. Takes an exclusive lock on ``blnk.transactions`` for as
    long as five indexes over it take to build; writers wait. The next run has no base and proves from the first
    posting on.
    """
    connection.execute(text("SET LOCAL statement_timeout = 0"))
    connection.execute(text("LOCK TABLE blnk.transactions IN ACCESS EXCLUSIVE MODE"))
    connection.execute(text("ALTER TABLE blnk.transactions DROP COLUMN recorded_xid"))
    connection.execute(text("ALTER TABLE blnk.transactions ADD COLUMN recorded_xid xid8"))
    connection.execute(text("ALTER TABLE blnk.transactions ALTER COLUMN recorded_xid SET DEFAULT pg_current_xact_id()"))
    for name in RECORDED_INDEXES:
        connection.execute(text(f"CREATE INDEX {name} ON blnk.transactions {TRANSACTION_INDEXES[name]}"))
