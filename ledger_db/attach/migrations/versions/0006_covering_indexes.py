"""The indexes that history reads by hold what the posting rules read: built beside the old ones, which then go."""

from alembic import op
from sqlalchemy import text

from ledger_db.books.indexes import TRANSACTION_INDEXES

revision = "0006"
down_revision = "0005"

NAMES = ("ix_transactions_source_effective_at", "ix_transactions_destination_effective_at")


def upgrade() -> None:
    with op.get_context().autocommit_block():
        op.execute("SET statement_timeout = 0")
        op.execute("SET lock_timeout = 0")
        for name in NAMES:
            if _is_built(name):  # by 0002, in a database that is newer than this migration
                continue
            if not _is_built(f"{name}_new"):  # a build that was cut short leaves an invalid index
                op.execute(f"DROP INDEX CONCURRENTLY IF EXISTS blnk.{name}_new")
                op.execute(f"CREATE INDEX CONCURRENTLY {name}_new ON blnk.transactions {TRANSACTION_INDEXES[name]}")
            op.execute(f"DROP INDEX CONCURRENTLY IF EXISTS blnk.{name}")
            op.execute(f"ALTER INDEX blnk.{name}_new RENAME TO {name}")


def _is_built(name: str) -> bool:
    """Whether there is a valid index of that name with columns beside its key."""
    built = text("SELECT indisvalid AND indnatts > indnkeyatts FROM pg_index WHERE indexrelid = to_regclass(:name)")
    return bool(op.get_bind().scalar(built, {"name": f"blnk.{name}"}))
