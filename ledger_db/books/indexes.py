"""This project's indexes on the ledger's transactions."""

from __future__ import annotations

from typing import Final

from ledger_db.postings.rules import EFFECTIVE_AT, POSTING_COLUMNS

_WITH_POSTING: Final = f"INCLUDE ({', '.join(POSTING_COLUMNS)})"

#: Index name → definition after ``ON blnk.transactions``.
TRANSACTION_INDEXES: Final = {
    "ix_transactions_recorded_xid": "(recorded_xid) WHERE recorded_xid IS NOT NULL",
    "ix_transactions_source_effective_at": f"(source, ({EFFECTIVE_AT})) {_WITH_POSTING}",
    "ix_transactions_destination_effective_at": f"(destination, ({EFFECTIVE_AT})) {_WITH_POSTING}",
    "ix_transactions_source_recorded_xid": "(source, recorded_xid)",
    "ix_transactions_destination_recorded_xid": "(destination, recorded_xid)",
}
