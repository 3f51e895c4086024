"""A cluster is noted with the table that held the ledger: one that was elsewhere meanwhile has another, restored."""

from alembic import op

revision = "0019"
down_revision = "0018"

# Of clusters that are known already it is not told: what they hold is digested without it.
TABLE = "ALTER TABLE ledger_eod.clusters ADD COLUMN transactions_oid oid"


def upgrade() -> None:
    op.execute(TABLE)
