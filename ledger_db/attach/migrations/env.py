"""Alembic's entry point: runs the migrations on the connection that ``ledger_db.attach.migrate`` passes in.

Imports nothing of the project, like the migrations themselves.
"""

from alembic import context

if "connection" not in context.config.attributes:
    raise SystemExit("the migrations run only on a connection that ledger_db.attach.migrate passes in")

context.configure(**context.config.attributes, transaction_per_migration=True)
with context.begin_transaction():
    context.run_migrations()
