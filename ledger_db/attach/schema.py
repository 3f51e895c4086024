"""All tables of a migrated ledger: the reference's in schema ``blnk``, this project's own in ``ledger_eod``.

The migrations create the same tables; a test compares the two. In an existing Blnk database the ``blnk`` tables belong
to the application: the migrations add only ``transactions.recorded_xid`` and the indexes marked *Ours*.
"""

from __future__ import annotations

from ledger_db.books import tables as _books
from ledger_db.close import tables as _close
from ledger_db.core.metadata import metadata
from ledger_db.correction import tables as _correction
from ledger_db.evidence import tables as _evidence
from ledger_db.verification import tables as _verification

__all__ = ["PACKAGES", "metadata"]

#: The modules that declare tables. Importing them fills ``metadata``.
PACKAGES = (_books, _close, _evidence, _verification, _correction)
