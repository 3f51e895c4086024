"""Find a balance by the name that users give it: its id, or the indicator of an internal balance."""

from __future__ import annotations

from sqlalchemy import Connection, select

from ledger_db.books.tables import balances
from ledger_db.errors import Hint, UnknownBalance

INDICATOR_SIGN = "@"


def find_balance_id(connection: Connection, name: str, *, currency: str | None = None) -> str:
    """The id of the balance with this id or indicator (``@Name``, unique within a currency).

    Raises:
        UnknownBalance: no balance has this name, or balances in several currencies have it and ``currency`` is None.
    """
    named = balances.c.indicator if name.startswith(INDICATOR_SIGN) else balances.c.balance_id
    query = (
        select(balances.c.balance_id, balances.c.currency)
        .where(named == name)
        .order_by(balances.c.currency, balances.c.balance_id)
    )
    if currency is not None:
        query = query.where(balances.c.currency == currency)
    rows = connection.execute(query).all()
    if not rows:
        in_currency = "" if currency is None else f" in {currency}"
        raise UnknownBalance(f"there is no balance {name}{in_currency}", hint=Hint.list_balances)
    if len(rows) > 1:
        currencies = ", ".join(row.currency for row in rows)
        raise UnknownBalance(f"{name} is kept in {currencies}", hint=Hint.name_the_currency)
    return str(rows[0].balance_id)
