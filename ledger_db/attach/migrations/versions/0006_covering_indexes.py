"""The indexes for history get the columns that the posting rules read. Builds new ones, then drops the old ones."""

from alembic import op
from sqlalchemy import text

revision = "0006"
down_revision = "0005"

EFFECTIVE_AT = "((COALESCE(effective_date, created_at) AT TIME ZONE 'UTC'))"
POSTING = (
    "INCLUDE (recorded_xid, effective_date, created_at, precision, precise_amount, amount, status, parent_transaction)"
)

INDEXES = {
    "ix_transactions_source_effective_at": f"(source, {EFFECTIVE_AT}) {POSTING}",
    "ix_transactions_destination_effective_at": f"(destination, {EFFECTIVE_AT}) {POSTING}",
}


def upgrade() -> None:
    with op.get_context().autocommit_block():
        op.execute("SET statement_timeout = 0")
        op.execute("SET lock_timeout = 0")
        for name, definition in INDEXES.items():
            if _is_built(name) or _is_partial(name):  # by 0002, in a database that is newer than this migration
                continue
            if not _is_built(f"{name}_new"):  # a build that was interrupted leaves an invalid index
                op.execute(f"DROP INDEX CONCURRENTLY IF EXISTS blnk.{name}_new")
                op.execute(f"CREATE INDEX CONCURRENTLY {name}_new ON blnk.transactions {definition}")
            op.execute(f"DROP INDEX CONCURRENTLY IF EXISTS blnk.{name}")
            op.execute(f"ALTER INDEX blnk.{name}_new RENAME TO {name}")


def _is_built(name: str) -> bool:
    """Whether there is a valid index of that name with columns beside its key."""
    built = text("SELECT indisvalid AND indnatts > indnkeyatts FROM pg_index WHERE indexrelid = to_regclass(:name)")
    return bool(op.get_bind().scalar(built, {"name": f"blnk.{name}"}))


def _is_partial(name: str) -> bool:
    """Whether there is a valid index of that name as migration 0016 makes it."""
    partial = text("SELECT indisvalid AND indpred IS NOT NULL FROM pg_index WHERE indexrelid = to_regclass(:name)")
    return bool(op.get_bind().scalar(partial, {"name": f"blnk.{name}"}))
