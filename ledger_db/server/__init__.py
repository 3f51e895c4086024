"""The database server: engines with time-outs, the embedded PostgreSQL, advisory locks, questions to the catalogue.

Owns: the embedded cluster under ``LEDGER_DATA_FOLDER/postgres`` and its files; no table.
Invariants: every session has time-outs and is in UTC; an embedded server listens on no network address and is stopped
by its last user; a hold ends with its session, and never is what keeps data right.
Entry points: ``connections.transaction``, ``connections.one_instant``, ``holds.hold``, ``embedded.ensure_server``.
"""
