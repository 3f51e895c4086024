"""Migrations: they create the declared schema, run once, adopt a ledger without touching its rows, and protect it."""

from __future__ import annotations

import ast
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from sqlalchemy import Constraint, Index, text
from sqlalchemy.dialects.postgresql.base import ischema_names
from sqlalchemy.exc import DBAPIError

import ledger_db.attach
from ledger_db.attach.migrate import head, migrate, require_current, schema_state
from ledger_db.attach.schema import metadata
from ledger_db.books import accounts, recording
from ledger_db.books.recording import Movement
from ledger_db.books.tables import TRANSACTION_INDEXES
from ledger_db.close.snapshots import write_snapshot_batch
from ledger_db.core.key_ranges import KeyRange
from ledger_db.core.metadata import EOD_SCHEMA, PgSnapshot, Xid8
from ledger_db.errors import ConfigurationError, Hint, NotMigrated, sqlstate_of
from ledger_db.postings.rules import EFFECTIVE_AT
from ledger_db.server.connections import make_engine
from ledger_db.settings import Settings
from tests.testing.books import Books, Ledger

RESTRICT_VIOLATION = "23001"
MIGRATIONS = Path(ledger_db.attach.__file__).parent / "migrations"

#: Blnk's tables in an older installation: serial keys, float rates, its own names, no lineage columns.
OLD_BLNK = """
CREATE SCHEMA blnk;
CREATE TABLE blnk.ledgers (
    id SERIAL PRIMARY KEY, name TEXT, ledger_id TEXT NOT NULL UNIQUE, created_at TIMESTAMP NOT NULL DEFAULT NOW(),
    meta_data JSONB
);
CREATE TABLE blnk.identity (
    id SERIAL PRIMARY KEY, identity_id TEXT NOT NULL UNIQUE, first_name TEXT NOT NULL, last_name TEXT NOT NULL,
    created_at TIMESTAMP NOT NULL DEFAULT NOW(), meta_data JSONB
);
CREATE TABLE blnk.balances (
    id SERIAL PRIMARY KEY, balance_id TEXT NOT NULL UNIQUE, indicator TEXT, balance NUMERIC NOT NULL,
    credit_balance NUMERIC NOT NULL, debit_balance NUMERIC NOT NULL, currency TEXT NOT NULL,
    currency_multiplier BIGINT NOT NULL DEFAULT 1, ledger_id TEXT NOT NULL REFERENCES blnk.ledgers (ledger_id),
    identity_id TEXT REFERENCES blnk.identity (identity_id), created_at TIMESTAMP NOT NULL DEFAULT NOW(),
    meta_data JSONB, version INT NOT NULL DEFAULT 1, inflight_balance NUMERIC NOT NULL DEFAULT 0,
    inflight_credit_balance NUMERIC NOT NULL DEFAULT 0, inflight_debit_balance NUMERIC NOT NULL DEFAULT 0
);
CREATE UNIQUE INDEX unique_indicator_currency ON blnk.balances (indicator, currency) WHERE indicator IS NOT NULL;
CREATE TABLE blnk.transactions (
    id SERIAL PRIMARY KEY, transaction_id TEXT NOT NULL UNIQUE, source TEXT, destination TEXT, reference TEXT UNIQUE,
    amount NUMERIC, precise_amount NUMERIC, precision BIGINT DEFAULT 1, rate FLOAT, currency TEXT, description TEXT,
    status TEXT, hash TEXT, created_at TIMESTAMP NOT NULL DEFAULT NOW(), effective_date TIMESTAMP,
    scheduled_for TIMESTAMP, parent_transaction TEXT, meta_data JSONB,
    FOREIGN KEY (source) REFERENCES blnk.balances (balance_id),
    FOREIGN KEY (destination) REFERENCES blnk.balances (balance_id)
);
CREATE INDEX idx_transactions_source ON blnk.transactions (source);
CREATE INDEX idx_transactions_created_at_source ON blnk.transactions (created_at, source);
INSERT INTO blnk.ledgers (name, ledger_id) VALUES ('General Ledger', 'general_ledger_id');
INSERT INTO blnk.balances (balance_id, indicator, balance, credit_balance, debit_balance, currency, ledger_id)
VALUES ('bln_world', '@World', -12345, 0, 12345, 'USD', 'general_ledger_id'),
    ('bln_wallet', NULL, 12345, 12345, 0, 'USD', 'general_ledger_id');
INSERT INTO blnk.transactions (
    transaction_id, source, destination, reference, amount, precise_amount, precision, rate, currency, status,
    created_at
) VALUES ('txn_old', 'bln_world', 'bln_wallet', 'old', 123.45, NULL, 100, 0, 'USD', 'APPLIED', '2026-01-05 09:00');
"""

RELATIONS = """
SELECT c.relname, c.relfilenode FROM pg_class AS c
WHERE c.relnamespace = to_regnamespace('blnk') AND c.relkind IN ('r', 'i') AND c.relname NOT LIKE 'ix\\_%'
ORDER BY 1
"""


@pytest.fixture
def old_blnk(empty_database: Ledger) -> Books:
    """An older Blnk's database with one transaction in it, before this project was installed."""
    books = Books(empty_database)
    books.execute(OLD_BLNK)
    return books


def everything(books: Books) -> list[Sequence[Any]]:
    """Each column, constraint, index, trigger and function of the two schemas, with its definition."""
    return [
        *books.rows(
            "SELECT table_schema, table_name, column_name, data_type, column_default, is_nullable "
            "FROM information_schema.columns WHERE table_schema IN ('blnk', 'ledger_eod') ORDER BY 1, 2, 3"
        ),
        *books.rows(
            "SELECT conrelid::regclass::text, conname, pg_get_constraintdef(oid) FROM pg_constraint "
            "WHERE connamespace IN (to_regnamespace('blnk'), to_regnamespace('ledger_eod')) ORDER BY 1, 2"
        ),
        *books.rows("SELECT indexname, indexdef FROM pg_indexes WHERE schemaname IN ('blnk', 'ledger_eod') ORDER BY 1"),
        *books.rows("SELECT tgrelid::regclass::text, tgname, pg_get_triggerdef(oid) FROM pg_trigger "
                    "WHERE NOT tgisinternal ORDER BY 1, 2"),
        *books.rows("SELECT proname, prosrc FROM pg_proc "
                    "WHERE pronamespace IN (to_regnamespace('blnk'), to_regnamespace('ledger_eod')) ORDER BY 1"),
    ]  # fmt: skip


# What they create -----------------------------------------------------------------------------------------------------


def test_migrations_create_the_schema_that_the_tables_declare(books: Books, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(ischema_names, "xid8", Xid8)  # SQLAlchemy's reflection knows neither type
    monkeypatch.setitem(ischema_names, "pg_snapshot", PgSnapshot)
    with books.engine.connect() as connection:
        context = MigrationContext.configure(
            connection,
            opts={
                "include_schemas": True,
                "version_table": "schema_version",
                "version_table_schema": EOD_SCHEMA,
                "compare_type": True,
                "compare_server_default": True,
                "include_name": lambda name, kind, _: kind != "schema" or name in ("blnk", EOD_SCHEMA),
            },
        )
        assert compare_metadata(context, metadata) == []


def test_every_constraint_and_index_has_the_name_of_the_convention(books: Books) -> None:
    parts: list[Constraint | Index] = []
    for table in metadata.sorted_tables:
        parts += [*table.constraints, *table.indexes]
    declared = {str(part.name) for part in parts}
    made = {
        name
        for (name,) in books.rows(
            "SELECT conname FROM pg_constraint WHERE contype IN ('p', 'u', 'f', 'c') "
            "AND connamespace IN (to_regnamespace('blnk'), to_regnamespace('ledger_eod')) "
            "UNION SELECT indexname FROM pg_indexes WHERE schemaname IN ('blnk', 'ledger_eod')"
        )
    }
    assert made - declared == {"schema_version_pkc"}  # Alembic's own
    assert declared - made == set()
    assert [name for name in made if name.split("_")[0] not in ("pk", "fk", "uq", "ck", "ix", "schema")] == []


def test_general_ledger_is_there_from_the_start(books: Books) -> None:
    assert books.rows("SELECT name, ledger_id FROM blnk.ledgers") == [("General Ledger", "general_ledger_id")]


@pytest.mark.parametrize("path", sorted(MIGRATIONS.rglob("*.py")), ids=lambda path: path.stem)
def test_migration_imports_nothing_of_the_project(path: Path) -> None:
    imported: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            imported |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            imported.add("." * node.level + (node.module or ""))
    assert imported <= {"alembic", "sqlalchemy"}


# Once -----------------------------------------------------------------------------------------------------------------


def test_migrating_twice_changes_nothing(books: Books) -> None:
    before = everything(books)
    state = migrate(books.engine)
    assert (state.current, state.head, state.is_current) == (head(), head(), True)
    assert everything(books) == before


def test_migrations_at_the_same_time_create_what_one_creates(empty_database: Ledger, books: Books) -> None:
    failures: list[BaseException] = []

    def run() -> None:
        try:
            migrate(empty_database.engine)
        except BaseException as failure:
            failures.append(failure)

    threads = [threading.Thread(target=run) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    assert everything(Books(empty_database)) == everything(books)
    assert Books(empty_database).rows("SELECT version_num FROM ledger_eod.schema_version") == [(head(),)]


def test_state_shows_how_far_a_database_is_migrated(empty_database: Ledger, ledger: Ledger) -> None:
    with empty_database.engine.connect() as connection:
        assert schema_state(connection).current is None
        with pytest.raises(NotMigrated, match=rf"is at nothing, this version needs {head()}$") as refusal:
            require_current(connection)
        assert refusal.value.hint is Hint.migrate
    with ledger.engine.connect() as connection:
        require_current(connection)


def test_index_that_a_killed_migration_left_incomplete_is_built_again(books: Books) -> None:
    name = TRANSACTION_INDEXES[0].name
    books.execute("UPDATE pg_index SET indisvalid = false WHERE indexrelid = to_regclass(:name)", name=f"blnk.{name}")
    books.execute("DROP SCHEMA ledger_eod CASCADE")
    books.execute("CREATE SCHEMA ledger_eod")
    books.execute("CREATE TABLE ledger_eod.schema_version AS SELECT '0001' AS version_num")
    migrate(books.engine)
    assert books.rows("SELECT count(*) FROM pg_index WHERE NOT indisvalid") == [(0,)]


def test_narrow_indexes_of_an_earlier_version_are_replaced_also_after_a_killed_migration(books: Books) -> None:
    indexes = "SELECT indexname, indexdef FROM pg_indexes WHERE schemaname = 'blnk' ORDER BY 1"
    before = books.rows(indexes)
    for side, valid in (("source", True), ("destination", False)):
        name = f"ix_transactions_{side}_effective_at"
        books.execute(f"ALTER INDEX blnk.{name} RENAME TO {name}_new")
        books.execute(f"CREATE INDEX {name} ON blnk.transactions ({side}, ({EFFECTIVE_AT}))")
        books.execute(f"UPDATE pg_index SET indisvalid = {valid} WHERE indexrelid = to_regclass('blnk.{name}_new')")
    books.execute("DROP SCHEMA ledger_eod CASCADE")
    books.execute("CREATE SCHEMA ledger_eod")
    books.execute("CREATE TABLE ledger_eod.schema_version AS SELECT '0001' AS version_num")
    migrate(books.engine)
    assert books.rows(indexes) == before
    assert books.rows("SELECT count(*) FROM pg_index WHERE NOT indisvalid") == [(0,)]


# Adopting -------------------------------------------------------------------------------------------------------------


def test_adopting_rewrites_no_row_and_leaves_old_rows_recorded_before(old_blnk: Books) -> None:
    files, rows = old_blnk.rows(RELATIONS), old_blnk.rows("SELECT t.* FROM blnk.transactions AS t")
    balances = old_blnk.stored_rows()
    migrate(old_blnk.engine)
    assert old_blnk.rows(RELATIONS) == files
    assert old_blnk.stored_rows() == balances
    assert old_blnk.rows("SELECT t.* FROM blnk.transactions AS t") == [(*rows[0], None)]
    assert {name for (name,) in old_blnk.rows(
        "SELECT indexname FROM pg_indexes WHERE schemaname = 'blnk' AND indexname LIKE 'ix\\_%'"
    )} == {index.name for index in TRANSACTION_INDEXES}  # fmt: skip


def test_rows_recorded_after_adoption_carry_their_database_transaction(old_blnk: Books) -> None:
    migrate(old_blnk.engine)
    with old_blnk.engine.begin() as connection:
        xid = connection.scalar(text("SELECT CAST(pg_current_xact_id() AS text)"))
        connection.execute(
            text("INSERT INTO blnk.transactions (transaction_id, status) VALUES ('txn_blnks_own', 'QUEUED')")
        )
        recording.record(connection, Movement("bln_world", "bln_wallet", 55, "USD", transaction_id="txn_ours"))
    assert old_blnk.rows("SELECT transaction_id, CAST(recorded_xid AS text) FROM blnk.transactions ORDER BY id") == [
        ("txn_old", None),
        ("txn_blnks_own", xid),
        ("txn_ours", xid),
    ]


def test_adopted_ledger_can_be_closed(old_blnk: Books) -> None:
    migrate(old_blnk.engine)
    old_blnk.close_day("2026-01-05")
    with old_blnk.engine.begin() as connection:
        recording.record(connection, Movement("bln_world", "bln_wallet", 55, "USD"))
        accounts.create_balance(connection, currency="EUR")
    assert old_blnk.balance("bln_wallet", at="2026-01-06", known_at="2026-01-05") == "123.45"
    assert old_blnk.balance("bln_wallet", at="9999-01-01") == "124.00"
    assert old_blnk.balance("bln_wallet", at="9999-01-01", from_source=True) == "124.00"
    assert old_blnk.balance("bln_wallet") == "124.00"


def test_adopting_twice_changes_nothing(old_blnk: Books) -> None:
    migrate(old_blnk.engine)
    before, files = everything(old_blnk), old_blnk.rows(RELATIONS)
    migrate(old_blnk.engine)
    assert everything(old_blnk) == before
    assert old_blnk.rows(RELATIONS) == files


def test_blnk_that_is_too_old_is_refused_and_left_alone(old_blnk: Books) -> None:
    old_blnk.execute("ALTER TABLE blnk.transactions DROP COLUMN precise_amount, DROP COLUMN effective_date")
    before = old_blnk.rows("SELECT * FROM blnk.transactions")
    with pytest.raises(ConfigurationError) as refusal:
        migrate(old_blnk.engine)
    assert str(refusal.value) == (
        "blnk.transactions lacks effective_date, precise_amount: bring Blnk's own migrations up to date first"
    )
    assert old_blnk.rows("SELECT * FROM blnk.transactions") == before


def test_busy_ledger_is_left_alone_and_the_next_call_continues(old_blnk: Books) -> None:
    impatient = make_engine(old_blnk.ledger.url, settings=Settings(lock_timeout_seconds=1))
    with old_blnk.engine.connect() as writer:
        writer.execute(text("INSERT INTO blnk.transactions (transaction_id, status) VALUES ('txn_busy', 'QUEUED')"))
        with pytest.raises(ConfigurationError, match=r"^migration failed: .* \(the ledger was too busy to lock; try"):
            migrate(impatient)
        writer.commit()
    migrate(impatient)
    impatient.dispose()
    assert old_blnk.rows("SELECT count(*) FROM blnk.transactions WHERE recorded_xid IS NULL") == [(2,)]


# Guarding -------------------------------------------------------------------------------------------------------------


def refused_change(books: Books, statement: str, **parameters: Any) -> str:
    with pytest.raises(DBAPIError) as refusal:
        books.execute(statement, **parameters)
    assert sqlstate_of(refusal.value) == RESTRICT_VIOLATION
    return str(refusal.value.orig).splitlines()[0]


@pytest.mark.parametrize(
    "change",
    [
        "amount = amount + 1", "precise_amount = 1", "precision = 1", "status = 'VOID'", "source = destination",
        "destination = source", "currency = 'EUR'", "created_at = created_at - interval '1 day'",
        "effective_date = '2020-01-01'", "parent_transaction = 'txn_r1'", "recorded_xid = NULL", "reference = 'x'",
        "transaction_id = 'txn_x'", "id = 77",
    ],
)  # fmt: skip
def test_posted_transaction_cannot_be_edited(books: Books, change: str) -> None:
    books.post("source  destination  amount\n@world  wallet  1.00 USD")
    before = books.rows("SELECT * FROM blnk.transactions")
    assert "posted: only meta_data and the hash chain may change" in refused_change(
        books, f"UPDATE blnk.transactions SET {change}"
    )
    assert books.rows("SELECT * FROM blnk.transactions") == before


def test_metadata_and_hash_chain_of_a_transaction_may_change(books: Books) -> None:
    books.post("source  destination  amount\n@world  wallet  1.00 USD")
    assert books.execute("UPDATE blnk.transactions SET meta_data = '{\"a\": 1}', chain_seq = 1, chain_hash = 'x'") == 1


@pytest.mark.parametrize("table", ["transactions", "balances", "ledgers"])
@pytest.mark.parametrize("statement", ["DELETE FROM blnk.{}", "TRUNCATE blnk.{} CASCADE"])
def test_ledger_only_grows(books: Books, table: str, statement: str) -> None:
    books.post("source  destination  amount\n@world  wallet  1.00 USD")
    before = books.rows(f"SELECT * FROM blnk.{table} ORDER BY id")
    assert "is refused: the ledger only grows" in refused_change(books, statement.format(table))
    assert books.rows(f"SELECT * FROM blnk.{table} ORDER BY id") == before


EVIDENCE = ("runs", "activity", "balance_snapshots", "run_totals")


@pytest.mark.parametrize("table", [*EVIDENCE, "balance_snapshots_2026_01"])
def test_evidence_of_a_certified_run_cannot_be_changed(books: Books, table: str) -> None:
    books.post("""
        recorded          source  destination  amount
        2026-01-31 09:00  @world  wallet       1.00 USD
    """)
    books.close_day("2026-01-31")
    before = books.rows(f"SELECT * FROM ledger_eod.{table} ORDER BY 1, 2")
    assert before != []
    for statement in (
        f"UPDATE ledger_eod.{table} SET run_id = run_id",
        f"DELETE FROM ledger_eod.{table}",
        f"TRUNCATE ledger_eod.{table} CASCADE",
    ):
        refused_change(books, statement)
    assert books.rows(f"SELECT * FROM ledger_eod.{table} ORDER BY 1, 2") == before


def test_certified_run_takes_no_rows(books: Books) -> None:
    books.post("recorded  source  destination  amount\n2026-01-31 09:00  @world  wallet  1.00 USD")
    run = books.close_day("2026-01-31")
    with books.engine.begin() as connection, pytest.raises(Exception, match=r"is certified: it takes no more rows"):
        write_snapshot_batch(connection, run.run_id, KeyRange(1, 2, 2))


def test_rows_of_an_open_run_can_be_removed_and_not_edited(books: Books) -> None:
    books.post("recorded  source  destination  amount\n2026-01-31 09:00  @world  wallet  1.00 USD")
    run = books.open_day("2026-01-31")
    books.execute(
        "INSERT INTO ledger_eod.activity VALUES (:run_id, 1, '2026-01-31', false, 1, 0, 0, 0, 0, NULL, 1)",
        run_id=run.run_id,
    )
    refused_change(books, "UPDATE ledger_eod.activity SET credit_balance = 1")
    assert books.execute("DELETE FROM ledger_eod.activity") == 1
