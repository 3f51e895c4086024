"""Holds and refunds: what is left of a hold is read under the locks of both balances, so that two calls take turns.

The caller owns the database transaction. A refused call leaves nothing behind in it.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any, Literal

from sqlalchemy import Connection, Row, text

from ledger_db.books.recording import Movement, _lock_balances, record
from ledger_db.core.amounts import whole
from ledger_db.errors import BookingRefused
from ledger_db.postings.rules import statement


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
                statement(connection, "books.remaining_hold"), {"hold_key": hold.key, "hold_id": transaction_id}
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
        statement(connection, "books.find_transaction"), {"transaction_id": transaction_id}
    ).one_or_none()  # fmt: skip
    if row is None:
        raise BookingRefused(f"there is no transaction {transaction_id}")
    return row
