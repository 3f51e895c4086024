"""This project's indexes on the ledger's transactions, and how ``recorded_xid`` is renewed after a restore."""

from __future__ import annotations

from typing import Final

EFFECTIVE_AT: Final = "(COALESCE(effective_date, created_at) AT TIME ZONE 'UTC')"

#: name → what follows ``ON blnk.transactions``
TRANSACTION_INDEXES: Final = {
    "ix_transactions_effective_at": f"(({EFFECTIVE_AT}))",
    "ix_transactions_recorded_xid": "(recorded_xid) WHERE recorded_xid IS NOT NULL",
    "ix_transactions_source_effective_at": f"(source, ({EFFECTIVE_AT}))",
    "ix_transactions_destination_effective_at": f"(destination, ({EFFECTIVE_AT}))",
    "ix_transactions_source_recorded_xid": "(source, recorded_xid)",
    "ix_transactions_destination_recorded_xid": "(destination, recorded_xid)",
}

#: The indexes that go with the column when a restored copy renews it.
RECORDED_INDEXES: Final = tuple(name for name in TRANSACTION_INDEXES if name.endswith("recorded_xid"))
