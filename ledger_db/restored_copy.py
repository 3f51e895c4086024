"""Restored copies: transaction ids start over in another cluster, so what they said about the old one is forgotten."""

from __future__ import annotations

from sqlalchemy import Connection, text

from ledger_db.transaction_indexes import RECORDED_INDEXES, TRANSACTION_INDEXES


def system_identifier(connection: Connection) -> str:
    """The cluster's own number: kept by physical copies, whose transaction ids go on, new in restored ones."""
    return str(connection.scalar(text("SELECT system_identifier FROM pg_control_system()")))


def forget_recorded(connection: Connection) -> None:
    """Mark every transaction as recorded before installation.

    The column is dropped and made anew, which rewrites no row. Takes an exclusive lock on ``blnk.transactions`` for as
    long as three indexes over it take to build; writers wait. The next run has no base and proves from the first
    posting on.
    """
    connection.execute(text("SET LOCAL statement_timeout = 0"))
    connection.execute(text("LOCK TABLE blnk.transactions IN ACCESS EXCLUSIVE MODE"))
    connection.execute(text("ALTER TABLE blnk.transactions DROP COLUMN recorded_xid"))
    connection.execute(text("ALTER TABLE blnk.transactions ADD COLUMN recorded_xid xid8"))
    connection.execute(text("ALTER TABLE blnk.transactions ALTER COLUMN recorded_xid SET DEFAULT pg_current_xact_id()"))
    for name in RECORDED_INDEXES:
        connection.execute(text(f"CREATE INDEX {name} ON blnk.transactions {TRANSACTION_INDEXES[name]}"))
