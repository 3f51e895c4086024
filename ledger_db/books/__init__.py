"""The reference ledger's tables, and what writes them here: generator, import, recording, holds.

Owns: the definitions of ``blnk.ledgers``, ``identity``, ``balances``, ``transactions``, ``lineage_mappings``, and this
project's indexes on transactions. On an existing Blnk database the rows are the application's.
Reads: nothing else. Writes ``blnk.*`` only; the jobs never call it.
Invariants: balance rows are locked in key order, written under the version that was read, which is bumped, in one
database transaction with the transaction rows; a refused call leaves nothing behind.
Entry points: ``accounts``, ``recording.record_many``, ``holds``, ``names``, ``csv_import``, ``generator``.
"""
