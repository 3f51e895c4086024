"""Verifying: what is found, listed and declared."""

from __future__ import annotations

import pytest

from deployments.cli import run
from tests.deployments.cli.commands import json_of, refusal_of
from tests.testing.books import Books


def test_verify_finds_a_tampered_balance_and_discrepancies_lists_it(
    january: Books, prefect_api_url: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["verify"]) == 0
    assert "3 balances, nothing found" in capsys.readouterr().out
    assert run(["discrepancies"]) == 0
    assert capsys.readouterr().out == "no open discrepancies\n"
    january.execute("UPDATE blnk.balances SET credit_balance = credit_balance + 50 WHERE balance_id = 'bln_wallet'")
    verdict = json_of(capsys, "verify", "bln_wallet", "--scope", "from-genesis", "--json")
    assert (verdict["balance_count"], verdict["finding_count"], verdict["explained_percent"]) == (1, 1, "100")
    (found,) = json_of(capsys, "discrepancies", "--json")
    assert verdict["discrepancies"] == [found]
    assert (found["cause"], found["balance_id"], found["gross_difference"]) == (
        "tampered_stored_row",
        "bln_wallet",
        "50",
    )
    assert (found["stored"]["credit_balance"], found["proven"]["credit_balance"]) == ("120050", "120000")
    assert run(["discrepancies"]) == 0
    assert "tampered_stored_row" in capsys.readouterr().out


def test_an_opening_balance_is_declared_only_when_told(january: Books, capsys: pytest.CaptureFixture[str]) -> None:
    january.execute(
        "UPDATE blnk.balances SET credit_balance = 7, balance = 7 WHERE balance_id = :id", id=january.open("old")
    )
    asked = ["declare-opening", "bln_old", "--as", "ada", "--reason", "migrated"]
    assert run(asked) == 0
    assert "would declare bln_old: credit 7, debit 0" in capsys.readouterr().out
    assert january.rows("SELECT count(*) FROM ledger_eod.opening_balances") == [(0,)]
    assert run([*asked, "--yes"]) == 0
    assert january.rows("SELECT declared_by, reason, credit_balance FROM ledger_eod.opening_balances") == [
        ("ada", "migrated", 7)
    ]
    capsys.readouterr()
    assert refusal_of(capsys, "declare-opening", "bln_old", "--as", " ", "--reason", "x")[0] == 1
