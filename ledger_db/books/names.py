"""What people call a balance: its id, or the indicator of an internal one."""

from __future__ import annotations

from sqlalchemy import Connection, text

from ledger_db.errors import UnknownBalance

INDICATOR_SIGN = "@"


def find_balance_id(connection: Connection, name: str, *, currency: str | None = None) -> str:
    """The id of the balance with this id or indicator (``@Name``, unique with its currency).

    Raises:
        UnknownBalance: there is none, or there are several and ``currency`` has to say which.
    """
    column = "indicator" if name.startswith(INDICATOR_SIGN) else "balance_id"
    rows = connection.execute(
        text(
            f"SELECT balance_id, currency FROM blnk.balances WHERE {column} = :name "  # noqa: S608 - two constants
            "AND (CAST(:currency AS text) IS NULL OR currency = CAST(:currency AS text)) ORDER BY currency, balance_id"
        ),
        {"name": name, "currency": currency},
    ).all()
    if not rows:
        in_currency = "" if currency is None else f" in {currency}"
        raise UnknownBalance(f"there is no balance {name}{in_currency}; ledger-eod balances lists them")
    if len(rows) > 1:
        currencies = ", ".join(row.currency for row in rows)
        raise UnknownBalance(f"{name} is kept in {currencies}: say which with --currency")
    return str(rows[0].balance_id)
