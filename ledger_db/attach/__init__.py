"""What this project adds to a ledger's database: one nullable column, indexes, and a schema of its own.

Owns: the migrations, and ``ledger_eod.schema_version``. May know every package's tables.
Invariants: a migration imports nothing that can change later; no row of the ledger is rewritten; each migration can be
repeated after a kill; a second call changes nothing.
Entry points: ``migrate.migrate``, ``migrate.require_current``, ``schema.metadata``.
"""
