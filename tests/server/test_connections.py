"""Settings of one database transaction: they end with it, and need no snapshot."""

from __future__ import annotations

import pytest
from sqlalchemy import Connection, func, select, text
from sqlalchemy.exc import DBAPIError

from ledger_db.errors import UnknownBalance
from ledger_db.history.balance_at import balance_at
from ledger_db.server.connections import (
    prepared_statements,
    require_durable_commit,
    set_local,
    without_time_limit,
)
from tests.testing.books import Books, instant


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


def test_a_look_up_is_planned_once_a_session(books: Books) -> None:
    books.open("wallet")
    books.close_day("2026-01-30")
    with books.engine.connect() as connection:
        for _ in range(8):
            balance_at(connection, "bln_wallet", instant("2026-01-31"))
            connection.commit()
        planned = "SELECT sum(generic_plans), sum(custom_plans) FROM pg_prepared_statements WHERE statement LIKE :text"
        found = connection.execute(text(planned), {"text": "-- One balance at one instant, starting from%"}).one()
        assert tuple(map(int, found)) == (8, 0)


def test_plans_made_without_values_end_with_the_block(books: Books) -> None:
    with books.engine.connect() as connection:
        before = setting(connection, "plan_cache_mode")
        assert before != "force_generic_plan"
        with prepared_statements(connection):
            assert setting(connection, "plan_cache_mode") == "force_generic_plan"
        assert setting(connection, "plan_cache_mode") == before
        with pytest.raises(UnknownBalance):
            balance_at(connection, "bln_nobody", instant("2026-01-31"))
        assert setting(connection, "plan_cache_mode") == before
        with pytest.raises(DBAPIError), prepared_statements(connection):
            connection.execute(text("SELECT 1 / 0"))
        connection.rollback()
        assert setting(connection, "plan_cache_mode") == before
