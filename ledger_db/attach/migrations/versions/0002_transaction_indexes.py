"""The indexes on ``blnk.transactions`` that the close and history need, built without blocking writers."""

from alembic import op
from sqlalchemy import text

from ledger_db.books.indexes import TRANSACTION_INDEXES

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    with op.get_context().autocommit_block():
        connection = op.get_bind()
        # Waits for long transactions to end, so no limit; a build that was cut short leaves an invalid index.
        op.execute("SET statement_timeout = 0")
        op.execute("SET lock_timeout = 0")
        for name, definition in TRANSACTION_INDEXES.items():
            valid = connection.scalar(
                text("SELECT indisvalid FROM pg_index WHERE indexrelid = to_regclass(:name)"), {"name": f"blnk.{name}"}
            )
            if valid is False:
                op.execute(f"DROP INDEX CONCURRENTLY blnk.{name}")
            if not valid:
                op.execute(f"CREATE INDEX CONCURRENTLY {name} ON blnk.transactions {definition}")
