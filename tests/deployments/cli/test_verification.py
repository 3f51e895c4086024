"""Verifying: what is found, listed and declared."""

from __future__ import annotations

import pytest

from deployments.cli import run
from tests.deployments.cli.commands import json_of, refusal_of
from tests.testing.books import Books
from tests.testing.verifications import verify


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


@pytest.mark.usefixtures("prefect_api_url")
@pytest.mark.parametrize(
    ("command", "code", "said"),
    [
        (("verify", "--currency", "usd"), 1, "this ledger has no balance in usd; it has USD"),
        (("verify", "--ledger", "nope"), 1, "there is no ledger nope; there is general_ledger_id"),
        (("verify", "bln_wallet", "--currency", "EUR"), 1, ""),
        (("verify", "--scope", "checksums", "--currency", "USD"), 2, "checksums compares whole closes"),
        (("reconstruct", "--select", "discrepancies"), 1, "no balance has an open discrepancy"),
        (("reconstruct", "--select", "requested"), 1, "no balance requests a reconstruction"),
        (("discrepancies", "--cause", "foo"), 2, "'foo' is not one of"),
        (("balances", "--currency", "usd"), 1, "this ledger has no balance in usd; it has USD"),
    ],
)
def test_a_selection_of_nothing_is_refused(
    january: Books, capsys: pytest.CaptureFixture[str], command: list[str], code: int, said: str
) -> None:
    refused, message = refusal_of(capsys, *command)
    assert refused == code
    assert said in message
    assert january.rows("SELECT count(*) FROM ledger_eod.verifications") == [(0,)]
    assert january.rows("SELECT count(*) FROM ledger_eod.reconstructions") == [(0,)]


def test_no_discrepancy_of_a_cause_says_of_which(january: Books, capsys: pytest.CaptureFixture[str]) -> None:
    code, message = refusal_of(capsys, "discrepancies")
    assert (code, message) == (
        1, "no verification has finished: nothing was looked at; verify it first with ledger-eod verify",
    )  # fmt: skip
    verify(january, "since-close")
    assert run(["discrepancies", "--cause", "over_commit"]) == 0
    assert capsys.readouterr().out == "no open discrepancies of cause over_commit\n"


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
