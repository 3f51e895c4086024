"""Digests of the figures besides snapshots that answers and later closes are made of: they show that one changed.

They are stored when a run is certified. Computed again at any time, one differs where a row of its subject was edited,
added or removed by somebody who may switch triggers off.
"""

from __future__ import annotations

from hashlib import sha256
from math import ceil
from typing import Final

from sqlalchemy import Connection, func, insert, select

from ledger_db.close import tables
from ledger_db.postings.rules import statement
from ledger_db.server.connections import in_memory

#: A part is 1,024 balance keys.
PART_BITS: Final = 10
#: About so many rows of activity are digested in one statement.
ROWS_AT_ONCE: Final = 500_000


def digest_figures(connection: Connection, run_id: int) -> dict[str, str]:
    """What a run has stored, as it is now: a digest for each subject that has rows."""
    in_memory(connection)
    rows = connection.execute(statement(connection, "close.digest_figures"), {"run_id": run_id})
    digests = {row.subject: row.digest for row in rows}
    activity = _digest_activity(connection, run_id)
    return digests if activity is None else digests | {"activity": activity}


def _digest_activity(connection: Connection, run_id: int) -> str | None:
    """The SHA-256 of the digests of parts, range by range, so that no statement is long; None without activity."""
    activity = tables.activity
    first, last, row_count = connection.execute(
        select(func.min(activity.c.balance_key), func.max(activity.c.balance_key), func.count()).where(
            activity.c.run_id == run_id
        )
    ).one()
    if not row_count:
        return None
    first_part, last_part = first >> PART_BITS, last >> PART_BITS
    step = ceil((last_part - first_part + 1) / ceil(row_count / ROWS_AT_ONCE))
    digest = sha256()
    for part in range(first_part, last_part + 1, step):
        keys = {
            "first_key": part << PART_BITS, "last_key": (min(part + step, last_part + 1) << PART_BITS) - 1,
        }  # fmt: skip
        for (digest_of_part,) in connection.execute(
            statement(connection, "close.digest_activity"), {"run_id": run_id, **keys}
        ):
            digest.update(digest_of_part)
    return digest.hexdigest()


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
