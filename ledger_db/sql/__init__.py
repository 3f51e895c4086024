"""The statements that are too long to read inside Python, one file each, named after the function that runs it.

A line ``-- include NAME`` stands for the file of that name. ``postings.sql`` is such a file: the one home of the
posting rules. It is included and not a database view because a view would stop the application's own migrations from
altering the columns it reads.
"""

from __future__ import annotations

import re
from functools import lru_cache
from pathlib import Path
from typing import Final

from sqlalchemy import Connection, TextClause, text

_ANSWER: Final = "ledger_eod_legacy_rate"
_INCLUDE = re.compile(r"^-- include (\w+)$", re.MULTILINE)


def statement(connection: Connection, name: str) -> TextClause:
    """The statement in ``NAME.sql``, with the posting rules as this database's transactions need them."""
    return _statement(name, _reads_rate(name) and _has_legacy_rate(connection))


@lru_cache
def _statement(name: str, legacy_rate: bool) -> TextClause:
    return text(_source(name, legacy_rate))


@lru_cache
def _reads_rate(name: str) -> bool:
    return _source(name, True) != _source(name, False)


def _source(name: str, legacy_rate: bool) -> str:
    written = (Path(__file__).parent / f"{name}.sql").read_text()

    def include(match: re.Match[str]) -> str:
        included = match.group(1)
        if included == "rate":
            included = "legacy_rate" if legacy_rate else "no_rate"
        return _source(included, legacy_rate).strip()

    return _INCLUDE.sub(include, written)


def _has_legacy_rate(connection: Connection) -> bool:
    """Whether this installation still has ``transactions.rate``.

    Asked once a database transaction: the application may drop the column while sessions live, but not under a
    transaction that has read the table.
    """
    asked_in, known = connection.info.get(_ANSWER, (None, None))
    if known is None or asked_in is not connection.get_transaction():
        known = connection.scalar(
            text(
                "SELECT count(*) > 0 FROM pg_attribute WHERE attrelid = to_regclass('blnk.transactions') "
                "AND attname = 'rate' AND NOT attisdropped"
            )
        )
        connection.info[_ANSWER] = (connection.get_transaction(), known)
    return bool(known)
