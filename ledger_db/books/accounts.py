"""Create ledgers, owners and balances, and list balances as they are stored.

The caller owns the database transaction. A refused call writes nothing in it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final
from uuid import uuid4

from sqlalchemy import Column, Connection, Select, Table, exists, select
from sqlalchemy.dialects.postgresql import insert

from ledger_db.books import tables
from ledger_db.books.tables import GENERAL_LEDGER_ID
from ledger_db.core.amounts import AMOUNT_COLUMNS, StoredAmounts
from ledger_db.errors import BookingRefused, Hint, NothingSelected, UnknownIdentity, UnknownLedger
from ledger_db.server.connections import display_url

#: Of what there is, in a message about what there is not.
NAMED_AT_MOST: Final = 10

ALLOCATION_STRATEGIES: Final = ("FIFO", "LIFO", "PROPORTIONAL")

#: An ISO 4217 code, a ticker or any other name.
_CURRENCY = re.compile(r"[^\s\x00-\x1f\x7f]{1,64}")


@dataclass(frozen=True, kw_only=True)
class StoredBalance(StoredAmounts):
    """A balance row as it is stored, right or wrong. The next page starts after its ``balance_key``."""

    balance_key: int
    balance_id: str
    currency: str
    indicator: str | None
    owner: str | None
    created_at: datetime


def nothing_selected(
    connection: Connection,
    *,
    ledger_id: str | None = None,
    currency: str | None = None,
    currencies: Select[str] | None = None,
) -> NothingSelected:
    """The error for a ledger and currency (None: any) that no balance is of; it says what there is.

    ``currencies``: the query of those that there are; None: those of the balances as they are stored.
    """
    balances = tables.balances.c
    if not connection.scalar(select(exists(select(balances.id)))):
        where = display_url(connection.engine.url)
        return NothingSelected(f"the ledger at {where} has no balances", hint=Hint.name_the_ledger)
    if ledger_id is not None and not _has_value(connection, tables.ledgers.c.ledger_id, ledger_id):
        there = _some(connection, select(tables.ledgers.c.ledger_id).order_by(tables.ledgers.c.id))
        return NothingSelected(f"there is no ledger {ledger_id}; there is {there}")
    whose = "this ledger" if ledger_id is None else f"ledger {ledger_id}"
    if currency is None:
        return NothingSelected(f"{whose} has no balance")
    if currencies is None:
        currencies = select(balances.currency).distinct().order_by(balances.currency)
    there = _some(connection, currencies)
    return NothingSelected(f"{whose} has no balance in {currency}" + (f"; it has {there}" if there else ""))


def _some(connection: Connection, query: Select[str]) -> str:
    """The first few of what a query finds."""
    found = connection.scalars(query.limit(NAMED_AT_MOST + 1)).all()
    return ", ".join([*found[:NAMED_AT_MOST], *(["and others"] if len(found) > NAMED_AT_MOST else [])])


def create_ledger(
    connection: Connection, *, name: str, ledger_id: str | None = None, meta_data: Mapping[str, Any] | None = None
) -> str:
    """Create a ledger and return its id.

    Raises:
        BookingRefused: the name is blank, or the id is taken.
    """
    if not name.strip():
        raise BookingRefused("a ledger needs a name")
    ledger_id = ledger_id or f"ldg_{uuid4()}"
    values = {"ledger_id": ledger_id, "name": name}
    _insert_new(connection, tables.ledgers, f"ledger {ledger_id}", values, meta_data)
    return ledger_id


def create_identity(
    connection: Connection,
    *,
    first_name: str,
    last_name: str,
    identity_id: str | None = None,
    organization_name: str | None = None,
    category: str | None = None,
    identity_type: str | None = None,
    meta_data: Mapping[str, Any] | None = None,
) -> str:
    """Create an owner of balances and return its id.

    Raises:
        BookingRefused: a name is blank, or the id is taken.
    """
    if not first_name.strip() or not last_name.strip():
        raise BookingRefused("an identity needs a first and a last name")
    identity_id = identity_id or f"idt_{uuid4()}"
    values = {
        "identity_id": identity_id,
        "first_name": first_name,
        "last_name": last_name,
        "organization_name": organization_name,
        "category": category,
        "identity_type": identity_type,
    }
    _insert_new(connection, tables.identity, f"identity {identity_id}", values, meta_data)
    return identity_id


def create_balance(
    connection: Connection,
    *,
    currency: str,
    ledger_id: str = GENERAL_LEDGER_ID,
    indicator: str | None = None,
    identity_id: str | None = None,
    track_fund_lineage: bool = False,
    allocation_strategy: str = "FIFO",
    balance_id: str | None = None,
    meta_data: Mapping[str, Any] | None = None,
) -> str:
    """Create a balance of zero and return its id. With an ``indicator`` (``@Name``) it is an internal balance.

    Raises:
        BookingRefused: a balance cannot have this currency, indicator, ledger or allocation strategy; or its id, or its
            indicator in this currency, is taken.
        UnknownLedger, UnknownIdentity: the ledger or the owner does not exist.
    """
    require_currency(currency)
    if indicator is not None:
        if not re.fullmatch(r"@\S{1,255}", indicator):
            raise BookingRefused(f"{indicator!r} is no indicator: write @Name, without spaces")
        if ledger_id != GENERAL_LEDGER_ID:
            raise BookingRefused(f"internal balance {indicator} belongs in the General Ledger, not in {ledger_id}")
    if allocation_strategy not in ALLOCATION_STRATEGIES:
        raise BookingRefused(f"{allocation_strategy!r} is no allocation strategy: {', '.join(ALLOCATION_STRATEGIES)}")
    if track_fund_lineage and identity_id is None:
        raise BookingRefused("lineage tracking needs an owner: give the balance an identity_id")
    if not _has_value(connection, tables.ledgers.c.ledger_id, ledger_id):
        raise UnknownLedger(f"there is no ledger_id {ledger_id}")
    if identity_id is not None and not _has_value(connection, tables.identity.c.identity_id, identity_id):
        raise UnknownIdentity(f"there is no identity_id {identity_id}")
    balance_id = balance_id or f"bln_{uuid4()}"
    values: dict[str, Any] = {
        "balance_id": balance_id,
        "indicator": indicator,
        "balance": 0,
        "credit_balance": 0,
        "debit_balance": 0,
        "currency": currency,
        "ledger_id": ledger_id,
        "identity_id": identity_id,
    }
    if track_fund_lineage:  # an older installation lacks these columns
        values |= {"track_fund_lineage": True, "allocation_strategy": allocation_strategy}
    what = f"balance {balance_id}" if indicator is None else f"internal balance {indicator} in {currency}"
    _insert_new(connection, tables.balances, what, values, meta_data)
    return balance_id


def require_currency(currency: str) -> None:
    """Refuse a text that cannot be a currency.

    Raises:
        BookingRefused: it is empty, longer than 64 characters, or has a space or a control character.
    """
    if not _CURRENCY.fullmatch(currency):
        raise BookingRefused(
            f"{currency!r} is no currency: an ISO 4217 code, a ticker or a name of at most 64 characters, no spaces"
        )


def _has_value(connection: Connection, column: Column[str], value: str) -> bool:
    return bool(connection.scalar(select(exists().where(column == value))))


def _insert_new(
    connection: Connection, table: Table, what: str, values: Mapping[str, Any], meta_data: Mapping[str, Any] | None
) -> None:
    if meta_data is not None:
        values = {**values, "meta_data": dict(meta_data)}
    created = connection.scalar(insert(table).values(values).on_conflict_do_nothing().returning(table.c.id))
    if created is None:
        raise BookingRefused(f"{what} exists already")


def list_balances(
    connection: Connection,
    *,
    limit: int,
    after_key: int = 0,
    currency: str | None = None,
    balance_id: str | None = None,
) -> list[StoredBalance]:
    """Balance rows as they are stored, in key order; ``after_key``: the last ``balance_key`` of the page before."""
    balances, identity = tables.balances.c, tables.identity.c
    query = (
        select(
            balances.id.label("balance_key"),
            balances.balance_id,
            balances.currency,
            *(balances[column] for column in AMOUNT_COLUMNS),
            balances.indicator,
            (identity.first_name + " " + identity.last_name).label("owner"),
            balances.created_at,
        )
        .select_from(tables.balances.outerjoin(tables.identity, identity.identity_id == balances.identity_id))
        .where(balances.id > after_key)
        .order_by(balances.id)
        .limit(limit)
    )
    if currency is not None:
        query = query.where(balances.currency == currency)
    if balance_id is not None:
        query = query.where(balances.balance_id == balance_id)
    return [StoredBalance(**row) for row in connection.execute(query).mappings()]
