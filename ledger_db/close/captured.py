"""Captured balances: the balances that closes answer for, with the currency that they had, deleted ones included."""

from __future__ import annotations

from sqlalchemy import Connection, exists, literal, select, update
from sqlalchemy.dialects.postgresql import insert as insert_or_ignore

from ledger_db.books.tables import balances
from ledger_db.close import tables


def capture_balances(connection: Connection, run_id: int) -> None:
    """Capture the balances that no run has captured yet, and note those whose row is gone. Locks no ledger row.

    A balance that is made again under the text id of another one is not captured: postings name that id, and closes go
    on to answer for it under the first key. Cost: two passes over the balances.
    """
    captured = tables.captured_balances
    known = exists().where(captured.c.balance_key == balances.c.id)
    new = select(balances.c.id, balances.c.balance_id, balances.c.currency, literal(run_id)).where(~known)
    connection.execute(
        insert_or_ignore(captured)
        .from_select(["balance_key", "balance_id", "currency", "first_run_id"], new.order_by(balances.c.id))
        .on_conflict_do_nothing()
    )
    there = exists().where(balances.c.balance_id == captured.c.balance_id)
    connection.execute(update(captured).where(captured.c.gone_run_id.is_(None), ~there).values(gone_run_id=run_id))
