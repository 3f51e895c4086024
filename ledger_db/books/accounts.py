"""Ledgers, owners and balances: made, and listed as they are stored.

The caller owns the database transaction. A refused call leaves nothing behind in it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Any, Final
from uuid import uuid4

from sqlalchemy import Connection, text
from sqlalchemy.dialects.postgresql import insert

from ledger_db.books import tables
from ledger_db.books.tables import GENERAL_LEDGER_ID
from ledger_db.errors import BookingRefused

ALLOCATION_STRATEGIES: Final = ("FIFO", "LIFO", "PROPORTIONAL")

#: An ISO 4217 code, a ticker or an identifier of one's own.
_CURRENCY = re.compile(r"[^\s\x00-\x1f\x7f]{1,64}")


@dataclass(frozen=True)
class StoredBalance:
    """A balance row as it is stored, right or wrong; minor units. ``balance_key`` is where a next page starts."""

    balance_key: int
    balance_id: str
    currency: str
    balance: Decimal
    credit_balance: Decimal
    debit_balance: Decimal
    inflight_balance: Decimal
    inflight_credit_balance: Decimal
    inflight_debit_balance: Decimal
    indicator: str | None
    owner: str | None
    created_at: datetime


def create_ledger(
    connection: Connection, *, name: str, ledger_id: str | None = None, meta_data: Mapping[str, Any] | None = None
) -> str:
    """Make a ledger and return its id.

    Raises:
        BookingRefused: it has no name, or the id is taken.
    """
    if not name.strip():
        raise BookingRefused("a ledger needs a name")
    ledger_id = ledger_id or f"ldg_{uuid4()}"
    _insert_new(
        connection, tables.ledgers, f"ledger {ledger_id}", {"ledger_id": ledger_id, "name": name}, meta_data
    )  # fmt: skip
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
    """Make an owner of balances and return its id.

    Raises:
        BookingRefused: a name is missing, or the id is taken.
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
    """Make a balance at zero and return its id. With an ``indicator`` (``@Name``) it is an internal one.

    Raises:
        BookingRefused: the currency, ledger, owner or indicator is not one a balance can have, or is taken.
    """
    _require_currency(currency)
    if indicator is not None:
        if not re.fullmatch(r"@\S{1,255}", indicator):
            raise BookingRefused(f"{indicator!r} is no indicator: write @Name, without spaces")
        if ledger_id != GENERAL_LEDGER_ID:
            raise BookingRefused(f"internal balance {indicator} belongs in the General Ledger, not in {ledger_id}")
    if allocation_strategy not in ALLOCATION_STRATEGIES:
        raise BookingRefused(f"{allocation_strategy!r} is no allocation strategy: {', '.join(ALLOCATION_STRATEGIES)}")
    if track_fund_lineage and identity_id is None:
        raise BookingRefused("lineage tracking needs an owner: give the balance an identity_id")
    for table, column, value in (("ledgers", "ledger_id", ledger_id), ("identity", "identity_id", identity_id)):
        known = connection.scalar(
            text(f"SELECT count(*) FROM blnk.{table} WHERE {column} = :value"),  # noqa: S608 - two constants
            {"value": value},
        )
        if value is not None and not known:
            raise BookingRefused(f"there is no {column} {value}")
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


def _require_currency(currency: str) -> None:
    if not _CURRENCY.fullmatch(currency):
        raise BookingRefused(
            f"{currency!r} is no currency: an ISO 4217 code, a ticker or a name of at most 64 characters, no spaces"
        )


def _insert_new(
    connection: Connection, table: Any, what: str, values: dict[str, Any], meta_data: Mapping[str, Any] | None
) -> None:
    if meta_data is not None:
        values = values | {"meta_data": dict(meta_data)}
    made = connection.execute(
        insert(table).values(values).on_conflict_do_nothing().returning(table.c.id)
    ).one_or_none()  # fmt: skip
    if made is None:
        raise BookingRefused(f"{what} exists already")


def list_balances(
    connection: Connection,
    *,
    limit: int,
    after_key: int = 0,
    currency: str | None = None,
    balance_id: str | None = None,
) -> list[StoredBalance]:
    """Balance rows as they are stored, in key order; ``after_key`` is the last ``balance_key`` of the page before."""
    rows = connection.execute(
        text(
            """
            SELECT
                balances.id, balance_id, currency, balance, credit_balance, debit_balance, inflight_balance,
                inflight_credit_balance, inflight_debit_balance, indicator,
                identity.first_name || ' ' || identity.last_name AS owner, balances.created_at
            FROM blnk.balances
            LEFT JOIN blnk.identity ON identity.identity_id = balances.identity_id
            WHERE balances.id > :after_key
                AND (CAST(:currency AS text) IS NULL OR currency = CAST(:currency AS text))
                AND (CAST(:balance_id AS text) IS NULL OR balance_id = CAST(:balance_id AS text))
            ORDER BY balances.id
            LIMIT :limit
            """
        ),
        {"after_key": after_key, "currency": currency, "balance_id": balance_id, "limit": limit},
    )
    return [StoredBalance(*row) for row in rows]
