"""The indexes by which a balance's rows are found leave out rows that never count, and hold no other columns.

They are found by their keys now, which the columns did not include. Builds new ones, then drops the old ones.
"""

from alembic import op
from sqlalchemy import text

revision = "0016"
down_revision = "0015"

EFFECTIVE_AT = "((COALESCE(effective_date, created_at) AT TIME ZONE 'UTC'))"
COUNTS = "COALESCE(status, '') NOT IN ('QUEUED', 'SCHEDULED', 'REJECTED')"

INDEXES = {
    "ix_transactions_source_effective_at": f"(source, {EFFECTIVE_AT}) WHERE {COUNTS}",
    "ix_transactions_destination_effective_at": f"(destination, {EFFECTIVE_AT}) WHERE {COUNTS}",
    "ix_transactions_source_recorded_xid": f"(source, recorded_xid) WHERE {COUNTS} AND recorded_xid IS NOT NULL",
    "ix_transactions_destination_recorded_xid": (
        f"(destination, recorded_xid) WHERE {COUNTS} AND recorded_xid IS NOT NULL"
    ),
}


def upgrade() -> None:
    with op.get_context().autocommit_block():
        op.execute("SET statement_timeout = 0")
        op.execute("SET lock_timeout = 0")
        for name, definition in INDEXES.items():
            if _is_built(name):  # by 0002, in a database that is newer than this migration
                continue
            if not _is_built(f"{name}_new"):  # a build that was interrupted leaves an invalid index
                op.execute(f"DROP INDEX CONCURRENTLY IF EXISTS blnk.{name}_new")
                op.execute(f"CREATE INDEX CONCURRENTLY {name}_new ON blnk.transactions {definition}")
            op.execute(f"DROP INDEX CONCURRENTLY IF EXISTS blnk.{name}")
            op.execute(f"ALTER INDEX blnk.{name}_new RENAME TO {name}")


def _is_built(name: str) -> bool:
    """Whether there is a valid index of that name that leaves rows out."""
    built = text("SELECT indisvalid AND indpred IS NOT NULL FROM pg_index WHERE indexrelid = to_regclass(:name)")
    return bool(op.get_bind().scalar(built, {"name": f"blnk.{name}"}))
