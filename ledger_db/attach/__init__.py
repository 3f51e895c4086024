"""What this project adds to a ledger's database: one nullable column, indexes, and a schema of its own.

Owns: the migrations, and ``ledger_eod.schema_version``. May import every package's tables; the migrations may not.
Invariants: a migration imports nothing of this project; no row of the ledger is rewritten; each migration can be
repeated after a kill; a second call changes nothing.
Entry points: ``migrate.migrate``, ``migrate.require_current``, ``schema.metadata``.
"""
