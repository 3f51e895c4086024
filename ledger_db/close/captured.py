"""Captured balances: the balances that closes answer for, with the currency that they had, deleted ones included."""

from __future__ import annotations

from typing import Any

from sqlalchemy import Connection, Select, exists, literal, or_, select, update
from sqlalchemy.dialects.postgresql import insert as insert_or_ignore

from ledger_db.books.accounts import nothing_selected
from ledger_db.books.tables import balances
from ledger_db.close import tables


def require_balances(connection: Connection) -> None:
    """Refuse a ledger that has no balances and never had: its figures would be zero, and prove nothing.

    Raises:
        NothingSelected: it has none.
    """
    if not connection.scalar(select(or_(exists(select(balances.c.id)), exists(select(tables.captured_balances))))):
        raise nothing_selected(connection)


def capture_balances(connection: Connection, run_id: int) -> None:
    """Capture the balances that no run has captured yet, and note those whose row is gone. Locks no ledger row.

    A balance that is made again under the text id of another one is not captured: postings name that id, and closes go
    on to answer for it under the first key. Cost: two passes over the balances.
    """
    captured = tables.captured_balances
    connection.execute(
        insert_or_ignore(captured)
        .from_select(["balance_key", "balance_id", "currency", "first_run_id"], _not_captured(run_id))
        .on_conflict_do_nothing()
    )
    there = exists().where(balances.c.balance_id == captured.c.balance_id)
    connection.execute(update(captured).where(captured.c.gone_run_id.is_(None), ~there).values(gone_run_id=run_id))


def note_new_balances(connection: Connection, run_id: int) -> None:
    """Note for a preparation the balances that no run has captured yet; the close captures them itself."""
    noted, captured = tables.prepared_balances, tables.captured_balances
    made_again = exists().where(captured.c.balance_id == balances.c.balance_id)
    connection.execute(
        insert_or_ignore(noted).from_select(
            ["balance_key", "balance_id", "currency", "run_id"], _not_captured(run_id).where(~made_again)
        )
    )


def _not_captured(run_id: int) -> Select[Any]:
    known = exists().where(tables.captured_balances.c.balance_key == balances.c.id)
    query = select(balances.c.id, balances.c.balance_id, balances.c.currency, literal(run_id)).where(~known)
    return query.order_by(balances.c.id)
