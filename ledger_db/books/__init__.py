"""The reference ledger's tables, and what writes to them in this project: recording, holds, import, generator.

Owns: the definitions of ``blnk.ledgers``, ``identity``, ``balances``, ``transactions``, ``lineage_mappings``, and this
project's indexes on transactions. In an existing Blnk database the rows belong to the application.
Reads: nothing else. Writes ``blnk.*`` only; the jobs never call what writes.
Invariants: balance rows are locked in key order and written under the version that was read, which is raised by one, in
one database transaction with the transaction rows; a refused call writes nothing.
Entry points: ``accounts``, ``recording.record_many``, ``holds``, ``names``, ``csv_import``, ``generator``.
"""
