"""The database server: engines with time-outs, the embedded PostgreSQL, advisory locks, questions to the catalogue.

Owns: the embedded cluster under ``LEDGER_DATA_FOLDER/postgres`` and its files; no table.
Invariants: every session has time-outs and is in UTC; an embedded server listens on no network address and is stopped
by its last user; a hold ends with its session, and no data depends on it for being right.
Entry points: ``connections.transaction``, ``connections.one_instant``, ``connections.without_time_limit``,
``holds.hold``, ``embedded.ensure_server``.
"""
