"""Digests of the figures besides snapshots that answers and later closes are made of: they show that one changed.

They are stored when a run is certified. Computed again at any time, one differs where a row of its subject was edited,
added or removed by somebody who may switch triggers off.
"""

from __future__ import annotations

from sqlalchemy import Connection, insert, select

from ledger_db.close import tables
from ledger_db.postings.rules import statement


def digest_figures(connection: Connection, run_id: int) -> dict[str, str]:
    """What a run has stored, as it is now: a digest for each subject that has rows."""
    rows = connection.execute(statement(connection, "close.digest_figures"), {"run_id": run_id})
    return {row.subject: row.digest for row in rows}


def store_figure_digests(connection: Connection, run_id: int) -> None:
    """Keep the digests of an open run that has all its figures."""
    digests = digest_figures(connection, run_id)
    if digests:
        connection.execute(
            insert(tables.figure_digests),
            [{"run_id": run_id, "subject": subject, "digest": digest} for subject, digest in digests.items()],
        )


def stored_figure_digests(connection: Connection, run_id: int) -> dict[str, str]:
    """What a run had stored when it was certified."""
    stored = tables.figure_digests
    rows = connection.execute(select(stored.c.subject, stored.c.digest).where(stored.c.run_id == run_id))
    return {row.subject: row.digest for row in rows}
