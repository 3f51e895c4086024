"""The lint of the SQL sees every statement, and finds what is planted in it."""

from __future__ import annotations

import subprocess
import sys

import pytest

from ledger_db.core.statements import source
from tests.lints import sql
from tests.testing import PROJECT


def test_every_statement_is_linted_as_the_database_gets_it() -> None:
    names = sql.statements()
    assert "close.plan_older_pieces" in names
    assert "postings.postings" not in names  # linted where it is included
    for name in names:
        for variant in sql.variants(name):
            assert sql.laid_out(name, variant).split() == source(name, variant).split()


@pytest.mark.parametrize(
    ("right", "wrong", "rule"),
    [
        ("GROUP BY captured.currency", "group by captured.currency", "CP01"),
        ("    count(*) AS balance_count,", "  count(*) AS balance_count,", "LT02"),
        ("    sum(snapshots.debit_balance)", "    sum(debit_balance)", "RF02"),
        ("INNER JOIN", "JOIN", "AM05"),
    ],
)
def test_a_planted_fault_is_found(right: str, wrong: str, rule: str) -> None:
    text = sql.laid_out("close.total_snapshots")
    assert right in text
    assert lint(text) == (0, "1 statements, 0 findings")
    code, said = lint(text.replace(right, wrong, 1))
    assert code == 1
    assert rule in said


def lint(text: str) -> tuple[int, str]:
    """The linter on one text, in a process of its own: Prefect's server cannot be imported beside it."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.lints.sql", "-"], input=text, capture_output=True, text=True, cwd=PROJECT,
        check=False,
    )  # fmt: skip
    return done.returncode, (done.stdout + done.stderr).strip()
