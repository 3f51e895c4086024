"""The ledger: migrating, importing, and listing balances."""

from __future__ import annotations

from pathlib import Path

import pytest

from deployments.cli import run
from ledger_db.settings import get_settings
from tests.deployments.cli.commands import json_of, refusal_of
from tests.testing.books import Books, Ledger

REFERENCE_FIELDS = {
    "balance_id", "currency", "balance", "credit_balance", "debit_balance", "inflight_balance",
    "inflight_credit_balance", "inflight_debit_balance",
}  # fmt: skip


def test_amounts_beyond_64_bits_are_exact(books: Books, capsys: pytest.CaptureFixture[str]) -> None:
    books.post(f"""
        recorded          source  destination  amount
        2026-01-05 09:00  @world  wallet       {2**80}.00 USD
    """)
    assert json_of(capsys, "balances", "--json")[0]["balance"] == str(-(2**80) * 100)
    assert json_of(capsys, "balance-at", "bln_wallet", "--at", "2026-01-05", "--json")["balance"] == str(2**80 * 100)
    assert run(["balances"]) == 0
    assert f"{2**80 * 100:,}" in capsys.readouterr().out


def test_balances_go_on_after_the_last_of_a_page(january: Books, capsys: pytest.CaptureFixture[str]) -> None:
    everything = json_of(capsys, "balances", "--json")
    assert all(balance.keys() >= REFERENCE_FIELDS for balance in everything)
    first = json_of(capsys, "balances", "--limit", "2", "--json")
    rest = json_of(capsys, "balances", "--after", first[-1]["balance_id"], "--json")
    assert first + rest == everything
    code, message = refusal_of(capsys, "balances", "--currency", "EUR", "--json")
    assert (code, message) == (1, "this ledger has no balance in EUR; it has USD")
    assert json_of(capsys, "balances", "--after", everything[-1]["balance_id"], "--json") == []


def test_import_loads_a_file_and_lists_the_bad_rows_of_another(
    books: Books, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    for name in ("@world", "wallet"):
        books.open(name)
    good = tmp_path / "good.csv"
    good.write_text("reference,source,destination,amount,currency\nr1,@world,bln_wallet,12.00,USD\n")
    assert run(["import", str(good)]) == 0
    assert "1 transactions recorded, 2 balances moved" in capsys.readouterr().out
    bad = tmp_path / "bad.csv"
    bad.write_text(
        "reference,source,destination,amount,currency\nr2,@world,bln_wallet,-1,USD\nr3,@world,bln_nobody,1.00,USD\n"
    )
    assert run(["import", str(bad)]) == 1
    captured = capsys.readouterr()
    assert captured.err.splitlines()[0] == "ledger-eod: bad.csv: 2 rows cannot be booked, nothing was loaded"
    assert [line.split(":")[0] for line in captured.err.splitlines()[1:]] == ["line 2", "line 3"]
    assert books.stored("wallet") == "12.00"


def test_an_external_ledger_without_the_schema_says_what_to_run(
    empty_database: Ledger, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("LEDGER_DATABASE_URL", empty_database.url.render_as_string(hide_password=False))
    get_settings.cache_clear()
    code, message = refusal_of(capsys, "balances")
    assert code == 2
    assert "run ledger-eod migrate" in message
    assert run(["migrate"]) == 0
    assert run(["migrate"]) == 0
    assert "is already at" in capsys.readouterr().out
    code, message = refusal_of(capsys, "balances", "--json")
    assert (code, " has no balances; " in message) == (1, True)
