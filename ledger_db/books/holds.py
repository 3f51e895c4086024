"""Holds and refunds. The rest of a hold is read while both balances are locked, so that two calls take turns.

The caller owns the database transaction. A refused call writes nothing in it.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import Connection, Row, select

from ledger_db.books.recording import Movement, lock_balances, record
from ledger_db.books.tables import transactions
from ledger_db.core.amounts import whole
from ledger_db.errors import BookingRefused, UnknownTransaction
from ledger_db.postings.rules import SETTLING, SettlingStatus, statement


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
    """Post a hold, or ``amount_minor`` of it, and return the new transaction's id; by default all that is left.

    Raises:
        BookingRefused: the transaction is not a hold, nothing is left of it, or less than ``amount_minor`` is left.
        UnknownTransaction: it does not exist.
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
        BookingRefused: the transaction is not a hold, or nothing is left of it.
        UnknownTransaction: it does not exist.
    """
    return _settle(
        connection, transaction_id, "VOID", None,
        created_at=created_at, effective_date=effective_date, reference=reference, child_id=child_id,
    )  # fmt: skip


def _settle(
    connection: Connection,
    transaction_id: str,
    status: SettlingStatus,
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
        # Locks both rows, in key order, before the rest is read: two settlements of one hold take turns here.
        lock_balances(connection, {hold.source, hold.destination})
        remaining = _remaining_hold(connection, hold.key, transaction_id)
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
    """Move a transaction's amount back and return the new transaction's id. Inflight amounts do not change.

    As in the reference ledger, an applied or voided transaction can be refunded, once.

    Raises:
        BookingRefused: the transaction is not applied or voided, or was refunded before.
        UnknownTransaction: it does not exist.
    """
    original = _find_transaction(connection, transaction_id)
    if original.status not in SETTLING:
        raise BookingRefused(f"{transaction_id} is {original.status}: only an applied or voided one can be refunded")
    with connection.begin_nested():
        lock_balances(connection, {original.source, original.destination})
        earlier = connection.scalar(
            select(transactions.c.transaction_id)
            .where(transactions.c.parent_transaction == transaction_id, transactions.c.status == "APPLIED")
            .order_by(transactions.c.id)
            .limit(1)
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
    find = statement(connection, "books.find_transaction")
    row = connection.execute(find, {"transaction_id": transaction_id}).one_or_none()
    if row is None:
        raise UnknownTransaction(f"there is no transaction {transaction_id}")
    return row


def _remaining_hold(connection: Connection, hold_key: int, hold_id: str) -> int:
    """What is left of a hold, in minor units."""
    remaining = statement(connection, "books.remaining_hold")
    return whole(connection.scalar(remaining, {"hold_key": hold_key, "hold_id": hold_id}))
