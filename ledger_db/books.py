"""Keep books: make ledgers, owners and balances, record transactions, settle holds.

The ledger's hot path stays with the application that owns it; these functions exist so that the jobs can be tried and
proved. They follow the application's protocol all the same: balance rows are locked in key order, written under the
version that was read and bumped, in one database transaction with the transaction rows, so both can work at once.

The caller owns the database transaction. A refused call leaves nothing behind in it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any, Final, Literal
from uuid import uuid4

from psycopg import Connection as PsycopgConnection
from sqlalchemy import Connection, Row, text
from sqlalchemy.dialects.postgresql import insert

from ledger_db import schema
from ledger_db.errors import BookingRefused
from ledger_db.runs import whole
from ledger_db.schema import GENERAL_LEDGER_ID
from ledger_db.sql import statement

Status = Literal["APPLIED", "INFLIGHT", "QUEUED", "SCHEDULED", "REJECTED", "VOID"]
STATUSES: Final = ("APPLIED", "INFLIGHT", "QUEUED", "SCHEDULED", "REJECTED", "VOID")
ALLOCATION_STRATEGIES: Final = ("FIFO", "LIFO", "PROPORTIONAL")

#: Minor units in one major unit, unless a movement says otherwise.
DEFAULT_PRECISION: Final = 100
LARGEST_PRECISION: Final = 10**18  # the column is a bigint

#: An ISO 4217 code, a ticker or an identifier of one's own.
_CURRENCY = re.compile(r"[^\s\x00-\x1f\x7f]{1,64}")


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
        connection, schema.ledgers, f"ledger {ledger_id}", {"ledger_id": ledger_id, "name": name}, meta_data
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
    _insert_new(connection, schema.identity, f"identity {identity_id}", values, meta_data)
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
    _insert_new(connection, schema.balances, what, values, meta_data)
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
            statement(connection, "record_many"),
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
    read = connection.execute(statement(connection, "lock_recorded_balances"), {"after_key": after_key}).all()
    return _apply(connection, after_key, read)


def _apply(connection: Connection, after_key: int, read: Sequence[Row[Any]]) -> int:
    row = connection.execute(
        statement(connection, "apply_recorded"),
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


def commit_inflight(
    connection: Connection,
    transaction_id: str,
    *,
    amount_minor: int | None = None,
    created_at: datetime | None = None,
    effective_date: datetime | None = None,
    reference: str | None = None,
    child_id: str | None = None,
) -> str:
    """Post a hold, or part of it, and return the new transaction's id; by default everything that is left.

    Raises:
        BookingRefused: it is not a hold, nothing is left of it, or less than ``amount_minor``.
    """
    return _settle(
        connection, transaction_id, "APPLIED", amount_minor,
        created_at=created_at, effective_date=effective_date, reference=reference, child_id=child_id,
    )  # fmt: skip


def void_inflight(
    connection: Connection,
    transaction_id: str,
    *,
    created_at: datetime | None = None,
    effective_date: datetime | None = None,
    reference: str | None = None,
    child_id: str | None = None,
) -> str:
    """Release what is left of a hold and return the VOID transaction's id.

    Raises:
        BookingRefused: it is not a hold, or nothing is left of it.
    """
    return _settle(
        connection, transaction_id, "VOID", None,
        created_at=created_at, effective_date=effective_date, reference=reference, child_id=child_id,
    )  # fmt: skip


def _settle(
    connection: Connection,
    transaction_id: str,
    status: Literal["APPLIED", "VOID"],
    amount_minor: int | None,
    *,
    created_at: datetime | None,
    effective_date: datetime | None,
    reference: str | None,
    child_id: str | None,
) -> str:
    hold = _find_transaction(connection, transaction_id)
    if hold.status != "INFLIGHT":
        raise BookingRefused(f"{transaction_id} is {hold.status}, not INFLIGHT: there is nothing held to settle")
    with connection.begin_nested():
        # Both rows, in key order, before what is left is read: two settlements of a hold take turns here.
        _lock_balances(connection, {hold.source, hold.destination})
        remaining = whole(
            connection.scalar(
                statement(connection, "remaining_hold"), {"hold_key": hold.key, "hold_id": transaction_id}
            )
        )
        amount = remaining if amount_minor is None else amount_minor
        if amount > remaining or remaining <= 0:
            raise BookingRefused(f"{transaction_id} holds {remaining} {hold.currency}, not {amount}")
        return record(
            connection,
            Movement(
                source=hold.source,
                destination=hold.destination,
                amount_minor=amount,
                currency=hold.currency,
                status=status,
                reference=reference,
                description=hold.description,
                precision=hold.precision,
                created_at=created_at,
                effective_date=effective_date,
                parent_transaction=transaction_id,
                transaction_id=child_id,
            ),
        )


def refund(
    connection: Connection,
    transaction_id: str,
    *,
    created_at: datetime | None = None,
    effective_date: datetime | None = None,
    reference: str | None = None,
    child_id: str | None = None,
) -> str:
    """Move a transaction's amount back and return the new transaction's id; what is on hold stays as it is.

    As in the reference ledger, an applied and a voided transaction can be refunded, once.

    Raises:
        BookingRefused: it is neither, or was refunded before.
    """
    original = _find_transaction(connection, transaction_id)
    if original.status not in ("APPLIED", "VOID"):
        raise BookingRefused(f"{transaction_id} is {original.status}: only an applied or voided one can be refunded")
    with connection.begin_nested():
        _lock_balances(connection, {original.source, original.destination})
        earlier = connection.scalar(
            text(
                "SELECT transaction_id FROM blnk.transactions "
                "WHERE parent_transaction = :transaction_id AND status = 'APPLIED' ORDER BY id LIMIT 1"
            ),
            {"transaction_id": transaction_id},
        )
        if earlier is not None:
            raise BookingRefused(f"{transaction_id} was refunded before, by {earlier}")
        return record(
            connection,
            Movement(
                source=original.destination,
                destination=original.source,
                amount_minor=whole(original.amount_minor),
                currency=original.currency,
                reference=reference,
                description=original.description,
                precision=original.precision,
                created_at=created_at,
                effective_date=effective_date,
                parent_transaction=transaction_id,
                transaction_id=child_id,
            ),
        )


def _find_transaction(connection: Connection, transaction_id: str) -> Row[Any]:
    row = connection.execute(
        statement(connection, "find_transaction"), {"transaction_id": transaction_id}
    ).one_or_none()  # fmt: skip
    if row is None:
        raise BookingRefused(f"there is no transaction {transaction_id}")
    return row


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
