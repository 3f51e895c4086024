"""A writer as the application is one: reads rows with their versions, writes absolute amounts where they still hold."""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal
from uuid import uuid4

from sqlalchemy import Connection, text

from tests.testing.books import PRECISION


class VersionRefusedError(Exception):
    """A row is not at the version that was read: the application rolls back and tries again."""


@dataclass(frozen=True)
class ReadRow:
    """A balance row as the application holds it in memory."""

    balance_id: str
    version: int
    credit: Decimal
    debit: Decimal


def read(connection: Connection, *balance_ids: str) -> list[ReadRow]:
    """The rows in the order of their ids; no lock is taken."""
    rows = connection.execute(
        text(
            "SELECT balance_id, version, credit_balance, debit_balance FROM blnk.balances "
            "WHERE balance_id = ANY(CAST(:ids AS text [])) ORDER BY balance_id"
        ),
        {"ids": list(balance_ids)},
    )
    return [ReadRow(*row) for row in rows]


def transfer(connection: Connection, rows: list[ReadRow], source: str, destination: str, amount: int) -> str:
    """Record one applied transaction and write both rows from what was read of them.

    Raises:
        VersionRefusedError: one of them was written since; the caller rolls back.
    """
    transaction_id = f"txn_{uuid4()}"
    connection.execute(
        text(
            "INSERT INTO blnk.transactions (transaction_id, source, destination, reference, amount, precise_amount, "
            "precision, currency, status, created_at) VALUES (:id, :source, :destination, :id, :major, :amount, "
            ":precision, 'USD', 'APPLIED', CAST('2026-01-31 12:00' AS timestamp))"
        ),
        {
            "id": transaction_id, "source": source, "destination": destination, "amount": amount,
            "major": Decimal(amount) / PRECISION, "precision": PRECISION,
        },
    )  # fmt: skip
    for row in rows:
        credit = row.credit + (amount if row.balance_id == destination else 0)
        debit = row.debit + (amount if row.balance_id == source else 0)
        written = connection.execute(
            text(
                "UPDATE blnk.balances SET credit_balance = :credit, debit_balance = :debit, balance = :balance, "
                "version = :version + 1 WHERE balance_id = :id AND version = :version"
            ),
            {
                "id": row.balance_id, "version": row.version, "credit": credit, "debit": debit,
                "balance": credit - debit,
            },
        ).rowcount  # fmt: skip
        if written != 1:
            raise VersionRefusedError(row.balance_id)
    return transaction_id
