"""Opening balances: what a balance held that no posting can prove, declared by somebody, for a reason, for good.

For balances imported with an amount and no transactions, and for histories that old installations left unprovable.
Verification adds the newest declaration to the raw postings; the closes and history do not: they tell postings.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import Connection

from ledger_db.core.amounts import Parts
from ledger_db.errors import DeclarationRefused
from ledger_db.postings.rules import statement


@dataclass(frozen=True)
class OpeningBalance:
    """What is added to a balance's postings from now on; minor units."""

    balance_id: str
    amounts: Parts
    declared_by: str
    reason: str
    declared_at: datetime


def declare_opening_balance(
    connection: Connection, balance_id: str, *, declared_by: str, reason: str
) -> OpeningBalance:
    """Declare a balance's stored row, as it is at this instant, to be right, and return what its postings lack.

    The newest declaration of a balance counts. Reads one balance's history; writes one row, no ledger row.

    Raises:
        DeclarationRefused: who or why is missing, there is no such balance, or its row is not credit minus debit.
    """
    if not declared_by.strip() or not reason.strip():
        raise DeclarationRefused("a declaration is evidence: it needs who declares it, and why")
    row = connection.execute(
        statement(connection, "verification.declare_opening_balance"),
        {"balance_id": balance_id, "declared_by": declared_by.strip(), "reason": reason.strip()},
    ).one_or_none()
    if row is None:
        raise DeclarationRefused(
            f"{balance_id}: there is no such balance, or its stored balance is not credit minus debit; verify it first"
        )
    return OpeningBalance(balance_id, Parts(*row[:4]), declared_by.strip(), reason.strip(), row.declared_at)
