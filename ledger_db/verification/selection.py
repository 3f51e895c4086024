"""The balances that a verification is about: all, or those of a ledger, of a currency, or some that are named."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from sqlalchemy import ColumnElement, Connection, Select, Text, any_, func, literal, or_, select, union
from sqlalchemy.dialects.postgresql import ARRAY

from ledger_db.books.accounts import nothing_selected
from ledger_db.books.tables import balances
from ledger_db.close.tables import captured_balances
from ledger_db.errors import Hint, NothingSelected, UnknownBalance

# as plan_balance_ranges.sql and compare_stored.sql name and restrict balances
_answered_for: Final = captured_balances.outerjoin(
    balances, balances.c.balance_id == captured_balances.c.balance_id, full=True
)
_currency: Final[ColumnElement[Any]] = func.coalesce(captured_balances.c.currency, balances.c.currency)


def require_known(connection: Connection, balance_ids: Sequence[str] | None) -> None:
    """Refuse names that no balance has or had.

    Raises:
        UnknownBalance: one that is given does not exist, or none is given.
    """
    if balance_ids is None:
        return
    asked = literal(list(balance_ids), ARRAY(Text))
    known = set(
        connection.scalars(
            union(
                *(
                    select(table.c.balance_id).where(table.c.balance_id == any_(asked))
                    for table in (balances, captured_balances)
                )
            )
        )
    )
    missing = sorted(set(balance_ids) - known)
    if missing or not balance_ids:
        raise UnknownBalance(f"there is no balance {missing[0] if missing else 'given'}", hint=Hint.list_balances)


def require_selected(
    connection: Connection, *, ledger_id: str | None, currency: str | None, balance_ids: Sequence[str] | None
) -> None:
    """Refuse to look at nothing, which would read as if all had been found right.

    Raises:
        NothingSelected: no balance is selected, or the ledger has none.
    """
    if (ledger_id, currency, balance_ids) == (None, None, None):
        is_there = or_(select(balances.c.id).exists(), select(captured_balances.c.balance_key).exists())
    else:
        is_there = selected_keys(ledger_id=ledger_id, currency=currency, balance_ids=balance_ids).exists()
    if connection.scalar(select(is_there)):
        return
    if balance_ids is not None:
        of = [*([f"of ledger {ledger_id}"] if ledger_id else []), *([f"in {currency}"] if currency else [])]
        raise NothingSelected(f"none of the named balances is {' and '.join(of)}")
    raise nothing_selected(connection, ledger_id=ledger_id, currency=currency, currencies=_currencies_of(ledger_id))


def selected_keys(*, ledger_id: str | None, currency: str | None, balance_ids: Sequence[str] | None) -> Select[int]:
    """The keys of the selected balances, deleted ones included; None: not restricted by it."""
    captured = captured_balances
    chosen = select(func.coalesce(captured.c.balance_key, balances.c.id)).select_from(_answered_for)
    if ledger_id is not None:
        chosen = chosen.where(balances.c.ledger_id == ledger_id)
    if currency is not None:
        chosen = chosen.where(_currency == currency)
    if balance_ids is not None:
        asked = any_(literal(list(balance_ids), ARRAY(Text)))
        chosen = chosen.where(func.coalesce(captured.c.balance_id, balances.c.balance_id) == asked)
    return chosen


def _currencies_of(ledger_id: str | None) -> Select[str]:
    """The currencies that balances are verified in, of one ledger or of all."""
    there = select(_currency).select_from(_answered_for).distinct().order_by(_currency)
    return there if ledger_id is None else there.where(balances.c.ledger_id == ledger_id)
