"""A balance at an instant: what the command prints, and how instants are read."""

from __future__ import annotations

import pytest

from ledger_db.settings import get_settings
from tests.deployments.cli.commands import json_of, refusal_of
from tests.testing.books import Books


def test_balance_at_has_the_reference_fields_and_amounts_as_strings(
    january: Books, capsys: pytest.CaptureFixture[str]
) -> None:
    answer = json_of(capsys, "balance-at", "bln_wallet", "--at", "2026-01-06", "--json")
    assert answer == {
        "balance_id": "bln_wallet",
        "currency": "USD",
        "balance": "115000",
        "credit_balance": "120000",
        "debit_balance": "5000",
        "inflight_balance": "0",
        "inflight_credit_balance": "0",
        "inflight_debit_balance": "0",
        "timestamp": "2026-01-07T00:00:00Z",
        "known_at": None,
        "from_source": False,
        "correction_ids": [],
    }


def test_balance_at_answers_one_instant_the_same_in_every_offset(
    january: Books, capsys: pytest.CaptureFixture[str]
) -> None:
    spelled = ("2026-01-06T09:00:00Z", "2026-01-06T14:30:00+05:30", "2026-01-06T04:00:00-05:00")
    answers = [json_of(capsys, "balance-at", "bln_wallet", "--at", at, "--json") for at in spelled]
    assert [answer["balance"] for answer in answers] == ["120000"] * 3
    assert {answer["timestamp"] for answer in answers} == {"2026-01-06T09:00:00Z"}


def test_a_date_is_the_close_of_the_business_date_in_the_configured_zone(
    january: Books, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LEDGER_TIME_ZONE", "Europe/Berlin")
    monkeypatch.setenv("LEDGER_CUT_OFF", "17:00")
    get_settings.cache_clear()
    answer = json_of(capsys, "balance-at", "@world", "--at", "2026-01-06", "--json")
    assert answer["timestamp"] == "2026-01-06T16:00:00Z"


@pytest.mark.parametrize("known_at", ["2026-01-05", "1"])
def test_known_at_takes_a_date_or_a_run_and_from_source_agrees(
    january: Books, capsys: pytest.CaptureFixture[str], known_at: str
) -> None:
    january.post("""
        recorded          effective         source  destination  amount
        2026-02-01 09:00  2026-01-05 10:00  @world  wallet       7.00 USD
    """)
    asked = ("balance-at", "bln_wallet", "--at", "2026-01-05", "--json")
    known = json_of(capsys, *asked, "--known-at", known_at)
    assert (known["balance"], known["known_at"]) == ("120000", {"run_id": 1, "business_date": "2026-01-05"})
    assert json_of(capsys, *asked)["balance"] == "120700"
    assert json_of(capsys, *asked, "--from-source")["balance"] == "120700"


def test_an_indicator_in_several_currencies_needs_one(books: Books, capsys: pytest.CaptureFixture[str]) -> None:
    books.post("""
        recorded          source  destination  amount
        2026-01-05 09:00  @world  wallet       1200.00 USD
        2026-01-05 09:00  @world  purse        3.00 EUR
    """)
    asked = ("balance-at", "@world", "--at", "2026-01-05")
    assert refusal_of(capsys, *asked) == (1, "@world is kept in EUR, USD; say which with --currency")
    assert json_of(capsys, *asked, "--currency", "EUR", "--json")["balance"] == "-300"
