"""Every rule about homes finds a stray, leaves alone what is in its home, and looks at something in the project."""

from __future__ import annotations

import pytest

from tests.lints import homes
from tests.lints.homes import File, Rule, looked_at, strays

#: A rule, where the stray is planted, and the stray.
PLANTED: tuple[tuple[Rule, str, str], ...] = (
    (homes.visibility, "ledger_db/close/runs.sql", "SELECT pg_visible_in_snapshot(a, b)"),
    (homes.visibility, "ledger_db/close/runs.py", "condition = func.pg_visible_in_snapshot(a, b)"),
    (homes.visibility, "tasks/close.py", "query = 'SELECT pg_visible_in_snapshot(a, b)'"),
    (homes.statuses, "ledger_db/close/runs.sql", "SELECT 1 WHERE t.status IN ('APPLIED', 'VOID')"),
    (homes.statuses, "ledger_db/close/runs.sql", "SELECT 1 WHERE t.status = ANY(ARRAY['QUEUED',\n 'VOID'])"),
    (homes.statuses, "ledger_db/books/holds.py", "query = \"status NOT IN ('APPLIED', 'VOID')\""),
    (homes.statuses, "ledger_db/books/holds.py", "if status in ('APPLIED', 'VOID'): pass"),
    (homes.statuses, "ledger_db/books/holds.py", "OPEN = {'INFLIGHT', 'QUEUED'}"),
    (homes.statuses, "ledger_db/books/holds.py", "Status = Literal['INFLIGHT', 'QUEUED']"),
    (homes.statuses, "ledger_db/postings/other.py", "OPEN = ['INFLIGHT', 'QUEUED']"),
    (homes.effective_instant, "ledger_db/close/a.sql", "SELECT coalesce(t.effective_date,\n t.created_at)"),
    (homes.effective_instant, "ledger_db/close/a.py", "at = 'COALESCE(effective_date, created_at)'"),
    (homes.effective_instant, "ledger_db/close/a.py", "at = func.coalesce(t.c.effective_date, t.c.created_at)"),
    (homes.effective_instant, "ledger_db/close/a.py", "at = row.effective_date or row.created_at"),
    (homes.amount_columns, "ledger_db/close/a.py", "query = 'SELECT credit_balance, debit_balance'"),
    (homes.amount_columns, "ledger_db/close/a.py", "query = f'SELECT {a}_credit_balance, {a}_debit_balance'"),
    (homes.amount_columns, "ledger_db/close/a.py", "query = 'SELECT balance, inflight_balance'"),
    (homes.amount_columns, "ledger_db/close/a.py", "columns = ('balance', 'inflight_balance')"),
    (homes.amount_columns, "deployments/a.py", "columns = ['stored_credit_balance', 'stored_debit_balance']"),
    (homes.text_queries, "ledger_db/close/a.py", "from sqlalchemy import text\ntext('SELECT 1')"),
    (homes.text_queries, "ledger_db/close/a.py", "from sqlalchemy import text as sql\nsql(f'UPDATE {table}')"),
    (homes.text_queries, "ledger_db/close/a.py", "import sqlalchemy\nsqlalchemy.text(query)"),
    (homes.command_line, "ledger_db/close/a.py", "raise Refused('ledger-eod close closes it')"),
    (homes.command_line, "tasks/a.py", "message = f'{day}: run ledger-eod migrate'"),
    (homes.command_line, "flows/a.py", '"""Shown by ``ledger-eod runs``."""'),
    (homes.includes, "ledger_db/close/a.sql", "-- include verification.compared\n"),
    (homes.includes, "ledger_db/history/a.sql", "-- include close.totals(a: b)\n"),
    (homes.statement_names, "ledger_db/close/a.py", "def close(c):\n    statement(c, 'close.sums')"),
    (homes.statement_names, "ledger_db/close/a.py", "statement(connection, 'close.sums')"),
    (homes.frozen_migrations, f"{homes.MIGRATIONS}0009_a.py", "from ledger_db.close.tables import runs"),
    (homes.frozen_migrations, f"{homes.MIGRATIONS}0009_a.py", "import ledger_db.core"),
    (homes.frozen_migrations, f"{homes.MIGRATIONS}0009_a.py", "from ..other import runs"),
)

#: What the rules allow.
ALLOWED: tuple[tuple[str, str], ...] = (
    ("ledger_db/close/in_cut.sql", "pg_visible_in_snapshot({xid}, {cut})"),
    ("ledger_db/close/a.sql", "-- pg_visible_in_snapshot, COALESCE(effective_date, created_at)\nSELECT 1"),
    ("ledger_db/postings/rules.py", "STATUSES = ('APPLIED', 'VOID')\nAT = 'COALESCE(effective_date, created_at)'"),
    ("ledger_db/postings/settles.sql", "{status} IN ('APPLIED', 'VOID')"),
    ("ledger_db/close/a.sql", "SELECT 1 WHERE t.status = 'APPLIED' OR kind IN ('close', 'interim')"),
    ("ledger_db/books/generator.py", "status = 'APPLIED' if posted else 'INFLIGHT'"),
    ("ledger_db/core/amounts.py", "COLUMNS = ('balance', 'credit_balance')"),
    ("ledger_db/close/a.py", '"""credit_balance and debit_balance."""\nrow.credit_balance - row.debit_balance'),
    ("ledger_db/close/a.py", "message = 'the balance is inflight_balance'"),
    ("ledger_db/close/a.py", "evidence = {'balance': 1, 'inflight_balance': 2}"),
    ("ledger_db/close/a.py", "from sqlalchemy import text\ntext('SET LOCAL enable_nestloop = off')"),
    ("ledger_db/close/a.py", "from sqlalchemy import text\nIndex('a', postgresql_where=text('closed_at IS NULL'))"),
    ("ledger_db/server/catalogue.py", "from sqlalchemy import text\ntext('SELECT 1 FROM pg_class')"),
    ("deployments/cli.py", "message = 'run ledger-eod migrate'"),
    ("flows/parts/hints.py", "message = 'run ledger-eod migrate'"),
    ("ledger_db/close/a.py", "message = 'the schema ledger-eod makes'"),
    (
        "ledger_db/history/a.sql",
        "-- include close.in_cut(xid: a; cut: b)\n-- include postings.postings\n-- include own\n",
    ),
    ("ledger_db/close/a.py", "def _sums(c):\n    def inner():\n        statement(c, 'close.sums')"),
    ("ledger_db/close/a.py", "def outer(c):\n    def sums():\n        statement(c, 'close.sums')"),
    (f"{homes.MIGRATIONS}0009_a.py", "from alembic import op\nop.execute('SELECT credit_balance, debit_balance')"),
)


@pytest.mark.parametrize(("rule", "path", "text"), PLANTED)
def test_a_planted_stray_is_found(rule: Rule, path: str, text: str) -> None:
    file = File(path, text)
    assert any(seen.stray for _, seen in looked_at(rule, [file]))
    found = strays([file])
    assert found
    assert all(line.startswith(f"{path}:") and line.endswith(".") for line in found)


@pytest.mark.parametrize(("path", "text"), ALLOWED)
def test_what_is_at_home_is_left_alone(path: str, text: str) -> None:
    assert strays([File(path, text)]) == []


def test_a_stray_is_reported_with_its_line() -> None:
    file = File("ledger_db/close/a.sql", "SELECT 1\n\nFROM a\nWHERE pg_visible_in_snapshot(b, c)")
    assert strays([file]) == [
        "ledger_db/close/a.sql:4: pg_visible_in_snapshot belongs in close/in_cut.sql and after_cut.sql."
    ]


@pytest.mark.parametrize("rule", homes.RULES)
def test_every_rule_looks_at_something_in_the_project(rule: Rule) -> None:
    assert looked_at(rule, homes.project())


def test_every_rule_is_planted_and_the_commands_are_known() -> None:
    assert {rule for rule, _, _ in PLANTED} == set(homes.RULES)
    assert {"close", "verify", "migrate"} <= homes.commands()
