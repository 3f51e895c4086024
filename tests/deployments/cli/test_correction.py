"""Correcting: proposed, approved by somebody else, made once, and logged."""

from __future__ import annotations

import json

import pytest

from deployments.cli import run
from tests.deployments.cli.commands import json_of, refusal_of
from tests.testing.books import Books

EIGHT_FIELDS = {
    "executed_at", "difference", "previous_balance", "previous_credit", "previous_debit", "recalculated_balance",
    "recalculated_credit", "recalculated_debit",
}  # fmt: skip
PROPOSING = ("reconstruct", "bln_wallet", "--apply", "--reason", "the bank's statement", "--as", "Ada")


@pytest.fixture
def drifted(january: Books) -> Books:
    """A stored row that somebody changed."""
    january.execute(
        "UPDATE blnk.balances SET credit_balance = credit_balance + 50, balance = balance + 50 "
        "WHERE balance_id = 'bln_wallet'"
    )
    return january


def test_reconstruct_says_what_was_and_what_is_and_changes_nothing(
    drifted: Books, prefect_api_url: str, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = drifted.stored_rows()
    report = json_of(capsys, "reconstruct", "bln_wallet", "@world", "--json")
    assert report["approval_reasons"] == ["50 USD in all, the limit is 0 (minor units)"]
    wallet, world = report["results"]
    assert (wallet["verdict"], world["verdict"]) == ("correct", "agrees")
    assert all(isinstance(each[name], str) for each in (wallet, world) for name in EIGHT_FIELDS)
    assert [wallet[name] for name in ("previous_balance", "recalculated_balance", "difference")] == [
        "115050", "115000", "-50",
    ]  # fmt: skip
    assert run(["reconstruct", "bln_wallet"]) == 0
    assert "1 to correct; nothing was changed" in capsys.readouterr().out
    assert run(["corrections"]) == 0
    assert capsys.readouterr().out == "no corrections\n"
    assert drifted.stored_rows() == rows


def test_what_a_report_showed_is_approved_and_applied_by_its_hash(
    drifted: Books, prefect_api_url: str, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = drifted.stored_rows()
    figures_hash = json_of(capsys, "reconstruct", "bln_wallet", "--json")["figures_hash"]
    asked = ("reconstruct", "bln_wallet", "--apply", "--approve", figures_hash, "--as", "Grace")
    assert "it needs a reason" in refusal_of(capsys, *asked)[1]
    assert drifted.stored_rows() == rows
    assert run([*asked, "--reason", "the bank's statement"]) == 0
    assert "1 corrected" in capsys.readouterr().out
    (line,) = json_of(capsys, "corrections", "--json")
    assert (line["proposed_by"], line["approved_by"]) == ("", "Grace")


def test_correction_is_proposed_approved_by_somebody_else_and_made_once(
    drifted: Books, prefect_api_url: str, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = drifted.stored_rows()
    assert run([*PROPOSING, "--json"]) == 4
    captured = capsys.readouterr()
    figures_hash = json.loads(captured.out)["figures_hash"]
    assert f"ledger-eod reconstruct --apply --approve {figures_hash[:16]} --as WHO" in captured.err
    assert "somebody else than Ada (50 USD in all, the limit is 0 (minor units))" in captured.err

    approving = ("reconstruct", "--apply", "--approve", figures_hash[:16])
    for arguments, code, said in (
        ((*approving, "--as", " ADA"), 1, "proposed this: somebody else must approve it"),
        ((*approving, "--as", ""), 2, "goes with --apply and --as WHO"),
        ((*approving, "bln_world_usd", "--as", "Grace"), 1, "is about other balances: bln_wallet"),
        ((*approving, "--select", "discrepancies", "--as", "Grace"), 2, "is about the balances of the proposal"),
        ((*approving[:3], "0" * 16, "--as", "Grace"), 1, "no proposal has figures with the hash"),
        ((*approving[:3], "a statement", "--as", "Grace"), 1, "is no hash of figures"),
    ):
        found, message = refusal_of(capsys, *arguments)
        assert (found, said in message) == (code, True), message
        assert drifted.stored_rows() == rows

    assert run([*approving, "--as", "Grace"]) == 0
    assert "1 corrected" in capsys.readouterr().out
    assert drifted.stored("wallet") == "1150.00"
    (line,) = json_of(capsys, "corrections", "bln_wallet", "--json")
    assert [line[name] for name in ("difference", "proposed_by", "approved_by", "reason", "cause")] == [
        "-50", "Ada", "Grace", "the bank's statement", "tampered_stored_row",
    ]  # fmt: skip
    assert (line["previous_credit_balance"], line["corrected_credit_balance"]) == ("120050", "120000")
    rows = drifted.stored_rows()
    code, message = refusal_of(capsys, *approving, "--as", "Grace")
    assert (code, "was applied with these figures already, approved by Grace" in message) == (1, True)
    assert run(PROPOSING) == 0
    assert "1 right" in capsys.readouterr().out
    assert drifted.stored_rows() == rows
    assert drifted.rows("SELECT decision::text, decided_by FROM ledger_eod.approvals ORDER BY approval_id") == [
        ("refused", "ADA"), ("approved", "Grace"),
    ]  # fmt: skip


def test_approval_of_figures_that_changed_asks_again(
    drifted: Books, prefect_api_url: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run([*PROPOSING, "--json"]) == 4
    figures_hash = json.loads(capsys.readouterr().out)["figures_hash"]
    drifted.execute("UPDATE blnk.balances SET debit_balance = debit_balance + 7 WHERE balance_id = 'bln_wallet'")
    rows = drifted.stored_rows()
    assert run(["reconstruct", "--apply", "--approve", figures_hash, "--as", "Grace"]) == 4
    assert "the figures are no longer those that were approved" in capsys.readouterr().err
    assert drifted.stored_rows() == rows
