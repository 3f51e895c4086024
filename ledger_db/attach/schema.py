"""Every table of a migrated ledger: those of the reference in schema ``blnk``, this project's own in ``ledger_eod``.

The migrations make the same tables; a test holds the two together. On an existing Blnk database the ``blnk`` tables are
the application's: only ``transactions.recorded_xid`` and the indexes marked *ours* are added there.
"""

from __future__ import annotations

from ledger_db.books import tables as _books
from ledger_db.close import tables as _close
from ledger_db.core.metadata import metadata
from ledger_db.correction import tables as _correction
from ledger_db.evidence import tables as _evidence
from ledger_db.verification import tables as _verification

__all__ = ["PACKAGES", "metadata"]

#: The modules that declare tables; importing them is what fills ``metadata``.
PACKAGES = (_books, _close, _evidence, _verification, _correction)
