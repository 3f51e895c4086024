"""``docs/refusals.md`` lists every trigger and constraint of a migrated database, and none that is gone."""

from __future__ import annotations

import re

from tests.testing import PROJECT
from tests.testing.books import Books

PAGE = PROJECT / "docs" / "refusals.md"

#: NOT NULL, which PostgreSQL 18 keeps as a constraint too, is not listed; nor are partitions, which have what their
#: parent has.
CATALOGUE = """
    WITH tables AS (
        SELECT classes.oid, format('%s.%s', nspname, relname) AS name
        FROM pg_class AS classes
        JOIN pg_namespace ON pg_namespace.oid = relnamespace
        WHERE nspname IN ('blnk', 'ledger_eod') AND NOT relispartition
    )
    SELECT tables.name, tgname FROM pg_trigger JOIN tables ON tables.oid = tgrelid WHERE NOT tgisinternal
    UNION
    SELECT tables.name, conname FROM pg_constraint JOIN tables ON tables.oid = conrelid WHERE contype <> 'n'
    UNION
    SELECT tables.name, relname
    FROM pg_index JOIN tables ON tables.oid = indrelid JOIN pg_class ON pg_class.oid = indexrelid
    WHERE indisunique
"""
FUNCTIONS = """
    SELECT proname, prosrc
    FROM pg_proc JOIN pg_namespace ON pg_namespace.oid = pronamespace
    WHERE nspname IN ('blnk', 'ledger_eod') AND prorettype = 'trigger'::regtype
"""


def listed() -> dict[tuple[str, str], str]:
    """What the page lists: table and name, with the line."""
    found: dict[tuple[str, str], str] = {}
    table = ""
    for line in PAGE.read_text(encoding="utf-8").splitlines():
        heading = re.fullmatch(r"### ((?:blnk|ledger_eod)\.\w+)", line)
        table = heading[1] if heading else table
        row = re.match(r"\| `(\w+)` \|", line)
        if row is not None:
            assert (table, row[1]) not in found, f"{table}: {row[1]} is listed twice"
            found[table, row[1]] = line
    return found


def test_lists_exactly_what_the_database_has(books: Books) -> None:
    present = {(table, name) for table, name in books.rows(CATALOGUE)}

    assert sorted(present - listed().keys()) == [], "the page lacks these"
    assert sorted(listed().keys() - present) == [], "the page lists these, and they are gone"


def test_every_row_says_what_is_refused_and_what_a_person_sees() -> None:
    for (table, name), line in listed().items():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        assert len(cells) == 5, f"{table} {name}"
        _, refuses, _, message, to_do = cells
        assert refuses and message and to_do, f"{table} {name}"


def test_quotes_every_message_of_a_trigger(books: Books) -> None:
    """Each fixed part of what a trigger function raises stands in a message of the page."""
    page = PAGE.read_text(encoding="utf-8")
    functions = books.rows(FUNCTIONS)
    assert functions
    for name, body in functions:
        (message,) = re.findall(r"RAISE EXCEPTION '([^']+)'", body)
        for part in (part for part in message.split("%") if len(part) > 3):
            assert part in page, f"{name} raises {message!r}"
