"""The posting rules as Python needs them: statuses, the effective instant, and how statements get the rules.

The rules themselves are ``postings.sql``. Nothing else spells out a list of statuses or the effective instant.
"""

from __future__ import annotations

from typing import Final, Literal

from sqlalchemy import Connection, TextClause

from ledger_db.core.statements import includes, load
from ledger_db.server.catalogue import has_column

#: Every status that a transaction row may have in the reference ledger.
Status = Literal["APPLIED", "INFLIGHT", "QUEUED", "SCHEDULED", "REJECTED", "VOID"]
STATUSES: Final[tuple[Status, ...]] = ("APPLIED", "INFLIGHT", "QUEUED", "SCHEDULED", "REJECTED", "VOID")

#: The statuses of a transaction that settles a hold, or that can be refunded: as in ``settles.sql``.
SettlingStatus = Literal["APPLIED", "VOID"]
SETTLING: Final[tuple[SettlingStatus, ...]] = ("APPLIED", "VOID")

#: When a posting counts. ``postings.sql`` and the indexes over transactions use exactly this expression.
EFFECTIVE_AT: Final = "(COALESCE(effective_date, created_at) AT TIME ZONE 'UTC')"

#: Whether a transaction counts: as in ``counts.sql``, and in the indexes that leave out the others.
COUNTS: Final = "(COALESCE(status, '') NOT IN ('QUEUED', 'SCHEDULED', 'REJECTED'))"

_RATE: Final = "postings.rate"
_RATE_KNOWN_IN: Final = "ledger_eod_legacy_rate"


def statement(connection: Connection, name: str, *variants: tuple[str, str]) -> TextClause:
    """The statement ``package.file``, with the posting rules as this database's transactions need them.

    ``variants``: further includes to replace, as pairs of an included name and the name to include instead.
    """
    if _RATE not in includes(name):
        return load(name, variants)
    rate = (_RATE, "postings.legacy_rate" if _has_legacy_rate(connection) else "postings.no_rate")
    return load(name, (rate, *variants))


def _has_legacy_rate(connection: Connection) -> bool:
    """Whether this installation still has ``transactions.rate``.

    Asked once a database transaction: the application may drop the column while sessions live, but not under a
    transaction that has read the table.
    """
    asked_in, known = connection.info.get(_RATE_KNOWN_IN, (None, None))
    if known is None or asked_in is not connection.get_transaction():
        known = has_column(connection, "blnk.transactions", "rate")
        connection.info[_RATE_KNOWN_IN] = (connection.get_transaction(), known)
    return bool(known)
