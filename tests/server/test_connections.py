"""Settings of one database transaction: they end with it, and need no snapshot."""

from __future__ import annotations

import pytest
from sqlalchemy import Connection, func, select, text

from ledger_db.server.connections import require_durable_commit, set_local, without_time_limit
from tests.testing.books import Books


def setting(connection: Connection, name: str) -> str:
    return str(connection.scalar(select(func.current_setting(name))))


def test_time_limit_is_lifted_for_one_transaction_only(books: Books) -> None:
    with books.engine.connect() as connection:
        before = setting(connection, "statement_timeout")
        without_time_limit(connection)
        assert (before == "0", setting(connection, "statement_timeout")) == (False, "0")
        connection.commit()
        assert setting(connection, "statement_timeout") == before


@pytest.mark.parametrize(("name", "value"), [("enable_nestloop", "off"), ("lock_timeout", "1234ms")])
def test_setting_changes_for_one_transaction_only(books: Books, name: str, value: str) -> None:
    with books.engine.connect() as connection:
        before = setting(connection, name)
        set_local(connection, name, value)
        assert (before == value, setting(connection, name)) == (False, value)
        connection.rollback()
        assert setting(connection, name) == before


def test_setting_before_the_first_statement_takes_no_snapshot(books: Books) -> None:
    """A repeatable-read transaction sees the instant of its first statement, which a setting must not be."""
    with books.engine.connect().execution_options(isolation_level="REPEATABLE READ") as reader:
        without_time_limit(reader)
        books.open("wallet")
        assert reader.scalar(text("SELECT count(*) FROM blnk.balances WHERE balance_id = 'bln_wallet'")) == 1


@pytest.mark.parametrize(("default", "kept"), [("off", "on"), ("local", "local"), ("on", "on")])
def test_durable_commit_replaces_only_a_default_that_does_not_wait(books: Books, default: str, kept: str) -> None:
    with books.engine.connect() as connection:
        set_local(connection, "synchronous_commit", default)
        require_durable_commit(connection)
        assert setting(connection, "synchronous_commit") == kept
