"""Finding a balance by its id or indicator: exactly one, or an error with a hint and without a command."""

from __future__ import annotations

import pytest

from ledger_db.books.names import find_balance_id
from ledger_db.errors import Hint, UnknownBalance
from tests.testing.books import Books


def test_balance_is_found_by_its_id_and_by_its_indicator(books: Books) -> None:
    wallet, world = books.open("wallet"), books.open("@world")
    with books.engine.connect() as connection:
        assert find_balance_id(connection, wallet) == wallet
        assert find_balance_id(connection, wallet, currency="USD") == wallet
        assert find_balance_id(connection, "@world") == world


def test_indicator_in_several_currencies_needs_the_currency(books: Books) -> None:
    dollars, euros = books.open("@world"), books.open("@world", "EUR")
    with books.engine.connect() as connection:
        with pytest.raises(UnknownBalance, match=r"^@world is kept in EUR, USD$") as refusal:
            find_balance_id(connection, "@world")
        assert refusal.value.hint is Hint.name_the_currency
        assert find_balance_id(connection, "@world", currency="USD") == dollars
        assert find_balance_id(connection, "@world", currency="EUR") == euros


@pytest.mark.parametrize(
    ("name", "currency", "line"),
    [
        ("bln_nobody", None, "there is no balance bln_nobody"),
        ("bln_wallet", "EUR", "there is no balance bln_wallet in EUR"),
        ("@nobody", None, "there is no balance @nobody"),
        ("wallet", None, "there is no balance wallet"),
    ],
)
def test_name_of_no_balance_is_not_found(books: Books, name: str, currency: str | None, line: str) -> None:
    books.open("wallet")
    with books.engine.connect() as connection, pytest.raises(UnknownBalance, match=f"^{line}$") as refusal:
        find_balance_id(connection, name, currency=currency)
    assert refusal.value.hint is Hint.list_balances
