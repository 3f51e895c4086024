"""What a verification is about: a selection that matches nothing is refused, with what there is."""

from __future__ import annotations

from typing import Any

import pytest

from ledger_db.errors import LedgerError, Misused, NothingSelected
from ledger_db.verification.sweeps import SCOPES, open_verification
from tests.testing.books import Books, unguarded
from tests.testing.verifications import verify


@pytest.fixture
def closed(books: Books) -> Books:
    books.post("""
        recorded          source  destination  amount
        2026-01-28 09:00  @world  wallet       1.00 USD
        2026-01-28 09:00  @world  purse        1.00 EUR
    """)
    books.close_day("2026-01-28")
    books.execute("INSERT INTO blnk.ledgers (ledger_id, name) VALUES ('ldg_bare', 'Bare')")
    return books


def refused(books: Books, kind: type[LedgerError], **selection: Any) -> str:
    with pytest.raises(kind) as refusal, books.engine.begin() as connection:
        open_verification(connection, **selection)
    assert books.rows("SELECT count(*) FROM ledger_eod.verifications") == [(0,)]
    return str(refusal.value)


@pytest.mark.parametrize("scope", ["since-close", "from-genesis"])
@pytest.mark.parametrize(
    ("selection", "said"),
    [
        ({"currency": "usd"}, "this ledger has no balance in usd; it has EUR, USD"),
        ({"ledger_id": "nope"}, "there is no ledger nope; there is general_ledger_id, ldg_bare"),
        ({"ledger_id": "ldg_bare"}, "ledger ldg_bare has no balance"),
        ({"ledger_id": "ldg_bare", "currency": "USD"}, "ledger ldg_bare has no balance in USD"),
        (
            {"ledger_id": "general_ledger_id", "currency": "GBP"},
            "ledger general_ledger_id has no balance in GBP; it has EUR, USD",
        ),
    ],
)
def test_a_selection_of_nothing_is_refused(closed: Books, scope: Any, selection: dict[str, str], said: str) -> None:
    assert refused(closed, NothingSelected, scope=scope, **selection) == said


def test_balances_that_are_named_and_not_of_the_currency_are_refused(closed: Books) -> None:
    said = refused(closed, NothingSelected, scope="from-genesis", currency="EUR", balance_ids=["bln_wallet"])
    assert said == "none of the named balances is in EUR"


def test_of_many_currencies_a_few_are_named(closed: Books) -> None:
    for number in range(12):
        closed.open("@many", currency=f"C{number:02}")
    said = refused(closed, NothingSelected, scope="from-genesis", currency="usd")
    assert said.endswith("it has C00, C01, C02, C03, C04, C05, C06, C07, C08, C09, and others")


@pytest.mark.parametrize("scope", SCOPES)
def test_a_ledger_without_balances_is_not_found_right(books: Books, scope: Any) -> None:
    said = refused(books, NothingSelected, scope=scope)
    assert said.startswith("the ledger at postgresql+psycopg://")
    assert said.endswith(" has no balances")
    assert "password" not in said


@pytest.mark.parametrize("selection", [{"currency": "USD"}, {"ledger_id": "nope"}, {"balance_ids": ["bln_wallet"]}])
def test_the_checksums_of_whole_closes_take_no_selection(closed: Books, selection: dict[str, Any]) -> None:
    said = refused(closed, Misused, scope="checksums", **selection)
    assert said == "checksums compares whole closes: select no ledger, currency or balance for it"


def test_a_currency_of_a_deleted_balance_only_is_still_verified(closed: Books) -> None:
    for side in ("source", "destination"):
        closed.execute(f"ALTER TABLE blnk.transactions DROP CONSTRAINT fk_transactions_{side}")
    unguarded(closed, "blnk.balances", "DELETE FROM blnk.balances WHERE currency = 'EUR'", rows=2)
    found = verify(closed, "since-close", currency="EUR")
    assert found.verification.balance_count == 2
    assert {each.cause for each in found.found} == {"balance_removed"}


def test_a_verification_of_a_part_says_of_which(closed: Books) -> None:
    for selection, part in (
        ({"currency": "USD"}, "currency USD"),
        ({"ledger_id": "general_ledger_id", "currency": "USD"}, "ledger general_ledger_id, currency USD"),
        ({"balance_ids": ["bln_wallet"]}, "balance bln_wallet"),
        ({"balance_ids": ["bln_wallet", "bln_purse"]}, "2 balances"),
    ):
        with closed.engine.begin() as connection:
            opened = open_verification(connection, scope="from-genesis", **selection)
        assert opened.name == f"from-genesis verification {opened.verification_id} of {part}"
