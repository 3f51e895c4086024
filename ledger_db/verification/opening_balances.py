"""Opening balances: what a balance held that no posting can prove. A declaration has an author and a reason, and stays.

For balances imported with an amount and no transactions, and for histories that old installations left unprovable.
Verification adds the newest declaration to the raw postings. Closes and history do not: they report postings only.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import Connection, exists, select

from ledger_db.books.tables import balances
from ledger_db.close.cluster import ensure_cluster
from ledger_db.core.amounts import Parts
from ledger_db.errors import DeclarationRefused, Hint, UnknownBalance
from ledger_db.postings.rules import statement


@dataclass(frozen=True)
class OpeningBalance:
    """What verification adds to a balance's postings from now on; minor units."""

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
        DeclarationRefused: the author or the reason is missing, or the row is not credit minus debit.
        UnknownBalance: there is none of this id.
    """
    if not declared_by.strip() or not reason.strip():
        raise DeclarationRefused("a declaration is evidence: it needs who declares it, and why")
    ensure_cluster(connection)  # before its cut
    row = connection.execute(
        statement(connection, "verification.declare_opening_balance"),
        {"balance_id": balance_id, "declared_by": declared_by.strip(), "reason": reason.strip()},
    ).one_or_none()
    if row is None:
        if not connection.scalar(select(exists().where(balances.c.balance_id == balance_id))):
            raise UnknownBalance(f"there is no balance {balance_id}", hint=Hint.list_balances)
        raise DeclarationRefused(
            f"the stored balance of {balance_id} is not credit minus debit", hint=Hint.verify_first
        )
    return OpeningBalance(balance_id, Parts.of_row(row), declared_by.strip(), reason.strip(), row.declared_at)
