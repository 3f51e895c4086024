"""Closes find their rows by key: the index on the effective instant goes, without blocking writers."""

from alembic import op

revision = "0008"
down_revision = "0007"


def upgrade() -> None:
    with op.get_context().autocommit_block():
        op.execute("SET statement_timeout = 0")
        op.execute("SET lock_timeout = 0")
        op.execute("DROP INDEX CONCURRENTLY IF EXISTS blnk.ix_transactions_effective_at")
