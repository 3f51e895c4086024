"""The statements that are too long to read inside Python, one file each, named after the function that runs it.

A line ``-- include NAME`` stands for the file of that name. ``postings.sql`` is such a file: the one home of the
posting rules. It is included and not a database view because a view would stop the application's own migrations from
altering the columns it reads.
"""

from __future__ import annotations

import re
from functools import lru_cache
from pathlib import Path

from sqlalchemy import Connection, TextClause, text

_INCLUDE = re.compile(r"^-- include (\w+)$", re.MULTILINE)


def statement(connection: Connection, name: str) -> TextClause:
    """The statement in ``NAME.sql``, with the posting rules as this database's transactions need them."""
    return _statement(name, _has_legacy_rate(connection))


@lru_cache
def _statement(name: str, legacy_rate: bool) -> TextClause:
    return text(_source(name, legacy_rate))


def _source(name: str, legacy_rate: bool) -> str:
    written = (Path(__file__).parent / f"{name}.sql").read_text()

    def include(match: re.Match[str]) -> str:
        included = match.group(1)
        if included == "rate":
            included = "legacy_rate" if legacy_rate else "no_rate"
        return _source(included, legacy_rate).strip()

    return _INCLUDE.sub(include, written)


def _has_legacy_rate(connection: Connection) -> bool:
    """Whether this installation still has ``transactions.rate``; asked once a connection."""
    known = connection.info.get("ledger_eod_legacy_rate")
    if known is None:
        known = connection.scalar(
            text(
                "SELECT count(*) > 0 FROM pg_attribute WHERE attrelid = to_regclass('blnk.transactions') "
                "AND attname = 'rate' AND NOT attisdropped"
            )
        )
        connection.info["ledger_eod_legacy_rate"] = known
    return bool(known)
