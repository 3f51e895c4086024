"""Samples of the rows that each close looked at show whether the ledger's table was made anew."""

from alembic import op

revision = "0009"
down_revision = "0008"

TABLE = """
CREATE TABLE ledger_eod.sampled_rows (
    run_id bigint NOT NULL,
    transaction_key bigint NOT NULL,
    key_set ledger_eod.key_set NOT NULL,
    transaction_id text NOT NULL,
    CONSTRAINT pk_sampled_rows PRIMARY KEY (run_id, transaction_key)
);
"""

# Of closes that exist: the first and last key of each block of 8,192.
SAMPLES = """
INSERT INTO ledger_eod.sampled_rows (run_id, transaction_key, key_set, transaction_id)
SELECT run_id, transaction_key, key_set, named.transaction_id
FROM (
    SELECT run_keys.run_id, run_keys.key_set, end_key AS transaction_key
    FROM ledger_eod.run_keys
    INNER JOIN ledger_eod.runs ON runs.run_id = run_keys.run_id
    CROSS JOIN LATERAL (VALUES (lower(run_keys.keys)), (upper(run_keys.keys) - 1)) AS ends (end_key)
    WHERE run_keys.key_set IN ('counted', 'pending') AND runs.kind = 'close' AND runs.status <> 'abandoned'
) AS sampled
CROSS JOIN LATERAL (
    SELECT t.transaction_id FROM blnk.transactions AS t WHERE t.id = sampled.transaction_key ORDER BY t.id LIMIT 1
) AS named
ON CONFLICT DO NOTHING;
"""

TRIGGERS = """
CREATE TRIGGER refuse_insert AFTER INSERT ON ledger_eod.sampled_rows REFERENCING NEW TABLE AS written
FOR EACH STATEMENT EXECUTE FUNCTION ledger_eod.refuse_certified_insert();
CREATE TRIGGER refuse_edit BEFORE UPDATE ON ledger_eod.sampled_rows
FOR EACH ROW EXECUTE FUNCTION ledger_eod.refuse_change();
CREATE TRIGGER refuse_delete BEFORE DELETE ON ledger_eod.sampled_rows
FOR EACH ROW EXECUTE FUNCTION ledger_eod.refuse_certified_delete();
CREATE TRIGGER refuse_truncate BEFORE TRUNCATE ON ledger_eod.sampled_rows
FOR EACH STATEMENT EXECUTE FUNCTION ledger_eod.refuse_change();
"""


def upgrade() -> None:
    op.execute("SET LOCAL statement_timeout = 0")
    op.execute(TABLE)
    op.execute(SAMPLES)
    op.execute(TRIGGERS)
