"""Alembic's entry: runs on the connection that ``ledger_db.attach.migrate`` hands over."""

from alembic import context
from sqlalchemy import Connection

from ledger_db.core.metadata import EOD_SCHEMA, metadata

connection: Connection | None = context.config.attributes.get("connection")
if connection is None:
    raise SystemExit("run migrations with: ledger-eod migrate")

context.configure(
    connection=connection,
    target_metadata=metadata,
    version_table="schema_version",
    version_table_schema=EOD_SCHEMA,
    include_schemas=True,
    transaction_per_migration=True,
)
with context.begin_transaction():
    context.run_migrations()
