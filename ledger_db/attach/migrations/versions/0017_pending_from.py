"""A close stores only what its base did not have pending, once that is many rows. Closes so far stored all of it."""

from alembic import op

revision = "0017"
down_revision = "0016"

RUNS = "ALTER TABLE ledger_eod.runs ADD COLUMN pending_from_run_id bigint"


def upgrade() -> None:
    op.execute(RUNS)
