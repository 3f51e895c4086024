"""Rows of closes from before rows were counted by their keys can be digested as those of later closes are."""

from alembic import op

revision = "0014"
down_revision = "0013"

TABLE = """
CREATE TABLE ledger_eod.later_digests (
    run_id bigint NOT NULL,
    piece integer NOT NULL,
    effective_date date NOT NULL,
    transaction_count bigint NOT NULL,
    posted_amount numeric NOT NULL,
    held_amount numeric NOT NULL,
    digest varchar(64) NOT NULL,
    digested_at timestamptz DEFAULT clock_timestamp() NOT NULL,
    CONSTRAINT pk_later_digests PRIMARY KEY (run_id, piece, effective_date),
    CONSTRAINT fk_later_digests_run_id FOREIGN KEY (run_id) REFERENCES ledger_eod.runs (run_id)
);
CREATE TRIGGER refuse_edit BEFORE UPDATE ON ledger_eod.later_digests
FOR EACH ROW EXECUTE FUNCTION ledger_eod.refuse_change();
CREATE TRIGGER refuse_delete BEFORE DELETE OR TRUNCATE ON ledger_eod.later_digests
FOR EACH STATEMENT EXECUTE FUNCTION ledger_eod.refuse_change();
"""


def upgrade() -> None:
    op.execute(TABLE)
