"""Record transactions and update the stored balance rows.

The application that owns the ledger records its transactions itself; these functions exist so that the jobs can be
tried and proved. They follow the application's protocol, so both can write at the same time: balance rows are locked in
key order and written under the version that was read, which is then raised by one, in one database transaction with the
transaction rows.

The caller owns the database transaction. A refused call writes nothing in it.
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
from sqlalchemy import ARRAY, Connection, Row, Text, any_, func, literal, select

from ledger_db.books.accounts import require_currency
from ledger_db.books.tables import balances, transactions
from ledger_db.errors import BookingRefused, UnknownBalance
from ledger_db.postings.rules import STATUSES, Status, statement

#: Minor units in one major unit, unless a movement has another precision.
DEFAULT_PRECISION: Final = 100
LARGEST_PRECISION: Final = 10**18  # the column is a bigint

#: A balance row that this transaction has locked: ``balance_key`` and ``version``, and what else was selected.
_LockedBalance = Row[*tuple[Any, ...]]


@dataclass(frozen=True)
class Movement:
    """One transaction to record. ``amount_minor`` is in minor units; ``precision`` of them are one major unit."""

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
    """Record transactions in this order, update the stored balance rows, and return the transactions' ids.

    The effect of a row on its balances follows the posting rules, also for holds: a child of an INFLIGHT row takes its
    amount off the hold even where nothing is left of it. :func:`~ledger_db.books.holds.commit_inflight` checks that.
    Waits for other writers of the same balances, and locks the balances in key order until the caller's transaction
    ends.

    Raises:
        BookingRefused: a movement cannot be recorded: the first one, and why. Nothing is recorded.
        UnknownBalance: a balance does not exist. Nothing is recorded.
    """
    if not movements:
        return []
    prepared = [_prepared(movement) for movement in movements]
    for column in ("reference", "transaction_id"):
        _require_distinct(column, [row[column] for row in prepared])
    with connection.begin_nested():
        stored = lock_balances(connection, {name for row in prepared for name in (row["source"], row["destination"])})
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
        _update_recorded_balances(connection, after_key, list(stored.values()))
    return [row["transaction_id"] for row in prepared]


def newest_recorded_key(connection: Connection) -> int:
    """The key of the newest transaction this database transaction has recorded so far, or 0."""
    recorded = (
        select(transactions.c.id)
        .where(transactions.c.recorded_xid == func.pg_current_xact_id())
        .offset(0)  # keeps the planner from searching the primary key backwards
        .subquery("recorded")
    )
    return int(connection.scalar(select(func.max(recorded.c.id))) or 0)


def driver_connection(connection: Connection) -> PsycopgConnection[Any]:
    """The driver's own connection, for COPY, inside the database transaction of SQLAlchemy's connection."""
    if not connection.in_transaction():
        connection.begin()
    driver = connection.connection.driver_connection
    assert isinstance(driver, PsycopgConnection)  # noqa: S101 - the only driver the project runs on
    return driver


def apply_recorded(connection: Connection, *, after_key: int) -> int:
    """Update the balance rows for the transactions that this database transaction recorded after a key.

    Returns how many rows changed. For loads that copy transaction rows in by themselves: call it exactly once after
    each, as a second call would count the rows again. Locks the balances in key order.

    Raises:
        BookingRefused: a balance row changed in spite of its lock.
    """
    return _update_recorded_balances(connection, after_key, _lock_recorded_balances(connection, after_key))


def _lock_recorded_balances(connection: Connection, after_key: int) -> Sequence[_LockedBalance]:
    lock = statement(connection, "books.lock_recorded_balances")
    return connection.execute(lock, {"after_key": after_key}).all()


def _update_recorded_balances(connection: Connection, after_key: int, read: Sequence[_LockedBalance]) -> int:
    row = connection.execute(
        statement(connection, "books.update_recorded_balances"),
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


def lock_balances(connection: Connection, balance_ids: set[str]) -> dict[str, _LockedBalance]:
    """Lock balance rows in key order and read them, by id. With NO KEY, foreign keys of other sessions do not wait.

    Raises:
        UnknownBalance: a balance does not exist.
    """
    rows = connection.execute(
        select(balances.c.id.label("balance_key"), balances.c.balance_id, balances.c.currency, balances.c.version)
        .where(balances.c.balance_id == any_(literal(sorted(balance_ids), ARRAY(Text))))
        .order_by(balances.c.id)
        .with_for_update(key_share=True)
    ).all()
    stored = {row.balance_id: row for row in rows}
    unknown = sorted(balance_ids - stored.keys())
    if unknown:
        raise UnknownBalance(f"there is no balance {unknown[0]}; create it first")
    return stored


def _require_same_currency(row: Mapping[str, Any], stored: Mapping[str, _LockedBalance]) -> None:
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
        BookingRefused: a field has a value that no row can have.
    """
    what = movement.reference or movement.transaction_id or f"{movement.source} to {movement.destination}"
    if type(movement.amount_minor) is not int or movement.amount_minor <= 0:
        raise BookingRefused(f"{what}: amount_minor {movement.amount_minor!r} is not a positive whole number")
    if movement.status not in STATUSES:
        raise BookingRefused(f"{what}: status {movement.status!r} is none of {', '.join(STATUSES)}")
    require_currency(movement.currency)
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
    """The decimals of a major unit at a precision: 2 for 100.

    Raises:
        BookingRefused: the precision is not a power of ten that fits its column.
    """
    decimals = len(str(precision)) - 1
    if not 1 <= precision <= LARGEST_PRECISION or precision != 10**decimals:
        raise BookingRefused(f"precision {precision} is not a power of ten from 1 to 10^18")
    return decimals


def major_units(amount_minor: int, precision: int = DEFAULT_PRECISION) -> Decimal:
    """An amount in major units, exact at any size.

    Raises:
        BookingRefused: the precision is not a power of ten that fits its column.
    """
    return Decimal(f"{amount_minor}E-{decimals_of(precision)}")  # exact; a division would round


def _naive_utc(what: str, column: str, instant: datetime | None) -> datetime | None:
    if instant is None:
        return None
    if instant.tzinfo is None:
        iso = instant.isoformat()
        raise BookingRefused(f"{what}: {column} {iso} has no offset: write for instance {iso}+00:00")
    return instant.astimezone(UTC).replace(tzinfo=None)
