"""The indexes on ``blnk.transactions`` that the close and history need, built without blocking writers."""

from alembic import op
from sqlalchemy import text

revision = "0002"
down_revision = "0001"

EFFECTIVE_AT = "((COALESCE(effective_date, created_at) AT TIME ZONE 'UTC'))"
COUNTS = "COALESCE(status, '') NOT IN ('QUEUED', 'SCHEDULED', 'REJECTED')"

INDEXES = {
    "ix_transactions_effective_at": f"({EFFECTIVE_AT})",
    "ix_transactions_recorded_xid": "(recorded_xid) WHERE recorded_xid IS NOT NULL",
    # As migration 0016 leaves them in a database that is older than it.
    "ix_transactions_source_effective_at": f"(source, {EFFECTIVE_AT}) WHERE {COUNTS}",
    "ix_transactions_destination_effective_at": f"(destination, {EFFECTIVE_AT}) WHERE {COUNTS}",
    "ix_transactions_source_recorded_xid": f"(source, recorded_xid) WHERE {COUNTS} AND recorded_xid IS NOT NULL",
    "ix_transactions_destination_recorded_xid": (
        f"(destination, recorded_xid) WHERE {COUNTS} AND recorded_xid IS NOT NULL"
    ),
}


def upgrade() -> None:
    with op.get_context().autocommit_block():
        connection = op.get_bind()
        # Waits for long transactions to end, so it has no limit. A build that was interrupted leaves an invalid index.
        op.execute("SET statement_timeout = 0")
        op.execute("SET lock_timeout = 0")
        for name, definition in INDEXES.items():
            valid = connection.scalar(
                text("SELECT indisvalid FROM pg_index WHERE indexrelid = to_regclass(:name)"), {"name": f"blnk.{name}"}
            )
            if valid is False:
                op.execute(f"DROP INDEX CONCURRENTLY blnk.{name}")
            if not valid:
                op.execute(f"CREATE INDEX CONCURRENTLY {name} ON blnk.transactions {definition}")
