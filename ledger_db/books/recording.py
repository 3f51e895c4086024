"""Keep books: make ledgers, owners and balances, record transactions, settle holds.

The ledger's hot path stays with the application that owns it; these functions exist so that the jobs can be tried and
proved. They follow the application's protocol all the same: balance rows are locked in key order, written under the
version that was read and bumped, in one database transaction with the transaction rows, so both can work at once.

The caller owns the database transaction. A refused call leaves nothing behind in it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any, Final
from uuid import uuid4

from psycopg import Connection as PsycopgConnection
from sqlalchemy import Connection, Row, text

from ledger_db.books.accounts import _require_currency
from ledger_db.errors import BookingRefused
from ledger_db.postings.rules import STATUSES, Status, statement

#: Minor units in one major unit, unless a movement says otherwise.
DEFAULT_PRECISION: Final = 100
LARGEST_PRECISION: Final = 10**18  # the column is a bigint


@dataclass(frozen=True)
class Movement:
    """One transaction to record; ``amount_minor`` in minor units, of which ``precision`` make one major unit."""

    source: str
    destination: str
    amount_minor: int
    currency: str
    status: Status = "APPLIED"
    reference: str | None = None
    description: str | None = None
    precision: int = DEFAULT_PRECISION
    created_at: datetime | None = None
    effective_date: datetime | None = None
    scheduled_for: datetime | None = None
    parent_transaction: str | None = None
    transaction_id: str | None = None
    meta_data: Mapping[str, Any] | None = None


def record(connection: Connection, movement: Movement) -> str:
    """Record one transaction and return its id; see :func:`record_many`."""
    return record_many(connection, [movement])[0]


def record_many(connection: Connection, movements: Sequence[Movement]) -> list[str]:
    """Record transactions in this order, bring the stored balance rows along, and return the transactions' ids.

    What a row does to its balances is what ``postings`` says, holds included: a child of an INFLIGHT row takes its
    amount off the hold even where nothing is left of it; :func:`commit_inflight` is the call that checks. Waits for
    other writers of the same balances and locks them, in key order, until the caller's transaction ends.

    Raises:
        BookingRefused: the first movement that cannot be recorded, and why; then none is.
    """
    if not movements:
        return []
    prepared = [_prepared(movement) for movement in movements]
    for column in ("reference", "transaction_id"):
        _require_distinct(column, [row[column] for row in prepared])
    with connection.begin_nested():
        stored = _lock_balances(connection, {name for row in prepared for name in (row["source"], row["destination"])})
        for row in prepared:
            _require_same_currency(row, stored)
        after_key = newest_recorded_key(connection)
        recorded = connection.scalars(
            statement(connection, "books.record_many"),
            {column: [row[column] for row in prepared] for column in prepared[0]},
        ).all()
        if len(recorded) < len(prepared):
            known = set(recorded)
            first = next(row for row in prepared if row["transaction_id"] not in known)
            raise BookingRefused(f"reference {first['reference']} or id {first['transaction_id']} is recorded already")
        _apply(connection, after_key, list(stored.values()))
    return [row["transaction_id"] for row in prepared]


def newest_recorded_key(connection: Connection) -> int:
    """The key of the newest transaction this database transaction has recorded so far, or 0."""
    # OFFSET 0 keeps the planner from walking the primary key backwards in search of one
    key = connection.scalar(
        text(
            "SELECT COALESCE(max(id), 0) FROM (SELECT id FROM blnk.transactions "
            "WHERE recorded_xid = pg_current_xact_id() OFFSET 0) AS recorded"
        )
    )
    return int(key or 0)


def driver_connection(connection: Connection) -> PsycopgConnection[Any]:
    """The driver's own connection, inside the database transaction that SQLAlchemy began: COPY is the driver's."""
    connection.execute(text("SELECT 1"))  # begins it, unless a statement did
    driver = connection.connection.driver_connection
    assert isinstance(driver, PsycopgConnection)  # noqa: S101 - the only driver the project runs on
    return driver


def apply_recorded(connection: Connection, *, after_key: int) -> int:
    """Bring the balance rows along with what this database transaction recorded after a key; returns how many moved.

    For loads that copy transaction rows in by themselves, exactly once after each. Locks the balances in key order.

    Raises:
        BookingRefused: a balance row changed in spite of its lock.
    """
    read = connection.execute(statement(connection, "books.lock_recorded_balances"), {"after_key": after_key}).all()
    return _apply(connection, after_key, read)


def _apply(connection: Connection, after_key: int, read: Sequence[Row[Any]]) -> int:
    row = connection.execute(
        statement(connection, "books.apply_recorded"),
        {
            "after_key": after_key,
            "balance_keys": [balance.balance_key for balance in read],
            "versions": [balance.version for balance in read],
        },
    ).one()
    if row.written_count != row.moved_count:
        raise BookingRefused(
            f"stale version: {row.moved_count - row.written_count} of {row.moved_count} balance rows are not at the "
            "version that was read; nothing was recorded, try again"
        )
    return int(row.written_count)


def _lock_balances(connection: Connection, balance_ids: set[str]) -> dict[str, Row[Any]]:
    """Lock balance rows in key order and read them. NO KEY: other sessions' foreign keys need not wait for it."""
    rows = connection.execute(
        text(
            "SELECT id AS balance_key, balance_id, currency, version FROM blnk.balances "
            "WHERE balance_id = ANY(CAST(:balance_ids AS text[])) ORDER BY id FOR NO KEY UPDATE"
        ),
        {"balance_ids": sorted(balance_ids)},
    ).all()
    stored = {row.balance_id: row for row in rows}
    unknown = sorted(balance_ids - stored.keys())
    if unknown:
        raise BookingRefused(f"there is no balance {unknown[0]}; create it first")
    return stored


def _require_same_currency(row: Mapping[str, Any], stored: Mapping[str, Row[Any]]) -> None:
    for side in ("source", "destination"):
        balance = stored[row[side]]
        if balance.currency != row["currency"]:
            raise BookingRefused(
                f"{row['reference']}: {side} {balance.balance_id} is kept in {balance.currency}, "
                f"the transaction is in {row['currency']}"
            )


def _require_distinct(column: str, values: Sequence[str]) -> None:
    seen: set[str] = set()
    for value in values:
        if value in seen:
            raise BookingRefused(f"{column} {value} is given twice")
        seen.add(value)


def _prepared(movement: Movement) -> dict[str, Any]:
    """A movement as the columns of its row.

    Raises:
        BookingRefused: a field that no row can have.
    """
    what = movement.reference or movement.transaction_id or f"{movement.source} to {movement.destination}"
    if type(movement.amount_minor) is not int or movement.amount_minor <= 0:
        raise BookingRefused(f"{what}: amount_minor {movement.amount_minor!r} is not a positive whole number")
    if movement.status not in STATUSES:
        raise BookingRefused(f"{what}: status {movement.status!r} is none of {', '.join(STATUSES)}")
    _require_currency(movement.currency)
    unique = uuid4()
    return {
        "transaction_id": movement.transaction_id or f"txn_{unique}",
        "source": movement.source,
        "destination": movement.destination,
        "description": movement.description,
        "reference": movement.reference or f"ref_{unique}",
        "amount": major_units(movement.amount_minor, movement.precision),
        "precise_amount": Decimal(movement.amount_minor),
        "precision": movement.precision,
        "currency": movement.currency,
        "status": movement.status,
        "created_at": _naive_utc(what, "created_at", movement.created_at),
        "effective_date": _naive_utc(what, "effective_date", movement.effective_date),
        "scheduled_for": _naive_utc(what, "scheduled_for", movement.scheduled_for),
        "parent_transaction": movement.parent_transaction,
        "meta_data": None if movement.meta_data is None else json.dumps(dict(movement.meta_data)),
    }


def decimals_of(precision: int) -> int:
    """How many decimals a precision gives a major unit: 100 gives 2.

    Raises:
        BookingRefused: it is not a power of ten that the column holds.
    """
    decimals = len(str(precision)) - 1
    if not 1 <= precision <= LARGEST_PRECISION or precision != 10**decimals:
        raise BookingRefused(f"precision {precision} is not a power of ten from 1 to 10^18")
    return decimals


def major_units(amount_minor: int, precision: int = DEFAULT_PRECISION) -> Decimal:
    """An amount in major units, exactly, however large.

    Raises:
        BookingRefused: the precision is not a power of ten that the column holds.
    """
    return Decimal(f"{amount_minor}E-{decimals_of(precision)}")  # the constructor is exact, a division would round


def _naive_utc(what: str, column: str, instant: datetime | None) -> datetime | None:
    if instant is None:
        return None
    if instant.tzinfo is None:
        iso = instant.isoformat()
        raise BookingRefused(f"{what}: {column} {iso} has no offset: write for instance {iso}+00:00")
    return instant.astimezone(UTC).replace(tzinfo=None)
