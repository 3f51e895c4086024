"""Whatever column of a certified close is edited by somebody who switches triggers off, the checksums name it.

Every table of ``ledger_eod`` is in one of two lists: tables to come are edited here, too, or it is said why not.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from sqlalchemy import Column, Connection, Enum, Table, inspect, text

from ledger_db.attach.schema import metadata
from ledger_db.close.figure_digests import digest_figures
from ledger_db.close.new_chain import approve_new_chain, compare_new_chain, open_new_chain
from ledger_db.close.runs import certified_run_ids
from ledger_db.core.calendar import BusinessCalendar
from ledger_db.core.metadata import EOD_SCHEMA
from ledger_db.errors import NotApproved, UnknownRun
from ledger_db.verification.closed_dates import check_run
from tests.testing.books import Books, instant, unguarded

#: Tables that hold nothing of a certified close.
NOT_OF_A_CLOSE = {
    "approvals": "who decided; a new chain's is in the close's digest, by its id",
    "corrections": "what was corrected of stored rows",
    "discrepancies": "what verifications found",
    "first_closes": "where closes were to begin; they have begun",
    "opening_balances": "what was declared beside the postings",
    "prepared_balances": "counted in advance; removed by the close",
    "prepared_parts": "counted in advance; removed by the close",
    "reconstruction_results": "what reconstructions found",
    "reconstructions": "the same",
    "schema_version": "which migrations ran",
    "verification_sums": "working rows of an open verification",
    "verifications": "what was compared",
}
#: Columns of a close that no figure, answer or later close is made of.
NOT_EVIDENCE = {
    "runs.status": "another word than certified takes the run out of every list: the next close is then out of order",
    "runs.refusal": "why an earlier try was not certified",
    "new_chains.compared_at": "when its differences were determined",
    "run_pieces.done_at": "when work ended",
    "run_pieces.fingerprint": "of a preparation, compared when its piece is taken over",
    "row_checksums.run_id": "of closes before migration 0012; theirs are compared in tests/migration",
    "later_digests.run_id": "the same",
}
OLD_KINDS = ("row_checksums", "later_digests")
#: What is added to a value of each type, or put in its place.
EDITS = {
    "BIGINT": "{} + 1000",
    "INTEGER": "{} + 1000",
    "NUMERIC": "{} + 1",
    "TEXT": "{} || 'x'",
    "VARCHAR": "overlay({} placing CASE left({}, 1) WHEN 'a' THEN 'b' ELSE 'a' END from 1 for 1)",
    "DATE": "{} - 7",
    "DATETIME": "{} + interval '1 second'",
    "TIME": "{} + interval '1 minute'",
    "BOOLEAN": "NOT {}",
    "INT8MULTIRANGE": "{} + '{{[90000000,90000001)}}'",
    "PG_SNAPSHOT": "'90000000:90000000:'",
    "XID8": "'90000000'",
    "OID": "'9'",
    "ARRAY": "{} || {}",
}


@pytest.fixture
def closed(books: Books) -> Books:
    """Closes with everything in them: late arrivals, exceptions, a hold, a balance that went, a new chain."""
    books.post("""
        recorded          effective         source  destination  amount      status    reference  parent
        2026-01-29 09:00  -                 @world  wallet       100.00 USD  APPLIED   first      -
        2026-01-29 09:00  -                 wallet  shop           5.00 USD  INFLIGHT  hold       -
        2026-01-29 09:00  2026-03-01 09:00  wallet  shop           6.00 USD  APPLIED   future     -
        2026-01-29 09:00  -                 wallet  gone           1.00 USD  APPLIED   kept       -
    """)
    books.insert(
        source=books.open("@world"), destination=books.open("purse", "EUR"), currency="USD", precise_amount=700,
        created_at="2026-01-29 10:00",
    )  # fmt: skip
    books.close_day("2026-01-29")
    books.post("""
        recorded          effective         source  destination  amount     status   reference  parent
        2026-01-30 09:00  -                 wallet  shop         30.00 USD  APPLIED  second     -
        2026-01-30 09:01  2026-01-29 08:00  @world  wallet       11.00 USD  APPLIED  late       -
        2026-01-30 09:02  -                 wallet  shop          5.00 USD  APPLIED  commit     hold
    """)
    for side in ("source", "destination"):
        books.execute(f"ALTER TABLE blnk.transactions DROP CONSTRAINT fk_transactions_{side}")
    unguarded(books, "blnk.balances", "DELETE FROM blnk.balances WHERE balance_id = 'bln_gone'")
    books.close_day("2026-01-30")
    unguarded(
        books, "blnk.transactions",
        "UPDATE blnk.transactions SET amount = 31, precise_amount = 3100 WHERE reference = 'second'",
    )  # fmt: skip
    books.post("""
        recorded          effective         source  destination  amount    reference
        2026-01-31 09:00  2026-01-30 09:00  wallet  shop         2.00 USD  since
    """)
    with books.engine.begin() as connection:
        run = open_new_chain(
            connection, reason="a repair", proposed_by="Ada", calendar=BusinessCalendar(),
            now=instant("2026-02-01 00:05"),
        )  # fmt: skip
    with pytest.raises(NotApproved):
        books.finish(run)
    with books.engine.begin() as connection:
        compare_new_chain(connection, run.run_id)
        figures_hash = connection.scalar(text("SELECT figures_hash FROM ledger_eod.new_chains"))
        approve_new_chain(connection, str(figures_hash), decided_by="Grace", channel="test")
    books.finish(run)
    with books.engine.begin() as connection:  # what an upgrade may leave behind, and what many pending keys would
        connection.execute(text("SET LOCAL session_replication_role = replica"))
        connection.execute(text("INSERT INTO ledger_eod.chain_differences VALUES (1, 1, 5, 0, 0, 0)"))
        connection.execute(text("UPDATE ledger_eod.runs SET pending_from_run_id = 1 WHERE run_id = 2"))
        for run_id in (1, 2):
            for subject, digest in digest_figures(connection, run_id).items():
                connection.execute(
                    text(
                        "INSERT INTO ledger_eod.figure_digests VALUES (:run, :about, :digest) "
                        "ON CONFLICT (run_id, subject) DO UPDATE SET digest = excluded.digest"
                    ),
                    {"run": run_id, "about": subject, "digest": digest},
                )
    return books


def columns_to_edit() -> Iterator[tuple[Table, Column[object]]]:
    for table in metadata.sorted_tables:
        if table.schema != EOD_SCHEMA or table.name in NOT_OF_A_CLOSE or table.name in OLD_KINDS:
            continue
        for column in table.columns:
            if f"{table.name}.{column.name}" not in NOT_EVIDENCE:
                yield table, column


def edited(column: Column[object]) -> str:
    """The expression of another value in a column."""
    if isinstance(column.type, Enum):
        enum = f"{EOD_SCHEMA}.{column.type.name}"
        return f"(SELECT other FROM unnest(enum_range(NULL::{enum})) AS other WHERE other <> {column.name} LIMIT 1)"
    kind = str(column.type).split("(")[0].split(" ")[0].upper()
    kind = "ARRAY" if kind.endswith("[]") else kind
    return EDITS[kind].format(column.name, column.name)


def test_every_table_is_edited_here_or_it_is_said_why_not(closed: Books) -> None:
    with closed.engine.connect() as connection:
        there = set(inspect(connection).get_table_names(schema=EOD_SCHEMA))
    partitions = {name for name in there if name.startswith("balance_snapshots_")}
    known = {table.name for table, _ in columns_to_edit()} | NOT_OF_A_CLOSE.keys() | set(OLD_KINDS)
    assert there - partitions == known


def findings(connection: Connection) -> int:
    """How many there are; a run whose base or number is gone cannot be checked, which fails the verification."""
    count = 0
    for run_id in certified_run_ids(connection):
        try:
            count += len(check_run(connection, run_id).findings)
        except UnknownRun:
            count += 1
    return count


def test_every_column_of_a_certified_close_is_named_when_it_is_edited(closed: Books) -> None:
    unseen, untried = [], []
    with closed.engine.connect() as connection:
        assert findings(connection) == 0
        connection.execute(text("SET LOCAL session_replication_role = replica"))
        for table, column in columns_to_edit():
            name = f"{table.name}.{column.name}"
            condition = f"{column.name} IS NOT NULL"
            if "run_id" in table.columns:
                condition += f" AND run_id IN (SELECT run_id FROM {EOD_SCHEMA}.runs WHERE status = 'certified')"
                # the rows of a chain that has ended are not compared any more
                condition += " ORDER BY run_id DESC"
            with connection.begin_nested() as savepoint:
                changed = connection.execute(
                    text(
                        f"UPDATE {EOD_SCHEMA}.{table.name} SET {column.name} = {edited(column)} WHERE ctid IN "
                        f"(SELECT ctid FROM {EOD_SCHEMA}.{table.name} WHERE {condition} LIMIT 1)".replace(":", r"\:")
                    )
                ).rowcount
                if not changed:
                    untried.append(name)
                elif not findings(connection):
                    unseen.append(name)
                savepoint.rollback()
        connection.rollback()
    assert unseen == []
    assert untried == []
