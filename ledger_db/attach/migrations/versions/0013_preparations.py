"""Rows of a date in progress can be counted in advance, for its close to take over."""

from alembic import op

revision = "0013"
down_revision = "0012"

TABLES = """
ALTER TYPE ledger_eod.run_kind ADD VALUE IF NOT EXISTS 'preparation';
ALTER TYPE ledger_eod.piece_work ADD VALUE IF NOT EXISTS 'prepared';
ALTER TABLE ledger_eod.run_pieces ADD COLUMN fingerprint varchar(64);
CREATE TABLE ledger_eod.prepared_parts (
    run_id bigint NOT NULL,
    piece integer NOT NULL,
    effective_date date NOT NULL,
    part bigint NOT NULL,
    transaction_count bigint NOT NULL,
    posted_amount numeric NOT NULL,
    held_amount numeric NOT NULL,
    digest bytea NOT NULL,
    CONSTRAINT pk_prepared_parts PRIMARY KEY (run_id, piece, effective_date, part)
);
CREATE TABLE ledger_eod.prepared_balances (
    run_id bigint NOT NULL,
    balance_key bigint NOT NULL,
    balance_id text NOT NULL,
    currency text NOT NULL,
    CONSTRAINT pk_prepared_balances PRIMARY KEY (run_id, balance_key)
);
"""

TRIGGERS = """
CREATE TRIGGER refuse_insert AFTER INSERT ON ledger_eod.{table} REFERENCING NEW TABLE AS written
FOR EACH STATEMENT EXECUTE FUNCTION ledger_eod.refuse_certified_insert();
CREATE TRIGGER refuse_edit BEFORE UPDATE ON ledger_eod.{table}
FOR EACH ROW EXECUTE FUNCTION ledger_eod.refuse_change();
"""

# Once for a statement, not for each row: a preparation's rows are removed by the million.
DELETION = """
CREATE FUNCTION ledger_eod.refuse_certified_removal() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    certified_run_id bigint;
BEGIN
    SELECT runs.run_id INTO certified_run_id
    FROM (SELECT DISTINCT run_id FROM removed) AS removed
    JOIN ledger_eod.runs ON runs.run_id = removed.run_id AND runs.status = 'certified';
    IF certified_run_id IS NOT NULL THEN
        RAISE EXCEPTION 'run % is certified: its rows in % are evidence', certified_run_id, TG_TABLE_NAME
            USING ERRCODE = 'restrict_violation';
    END IF;
    RETURN NULL;
END $$;
DROP TRIGGER refuse_delete ON ledger_eod.activity;
CREATE TRIGGER refuse_delete AFTER DELETE ON ledger_eod.activity REFERENCING OLD TABLE AS removed
FOR EACH STATEMENT EXECUTE FUNCTION ledger_eod.refuse_certified_removal();
"""


def upgrade() -> None:
    op.execute(TABLES)
    for table in ("prepared_parts", "prepared_balances"):
        op.execute(TRIGGERS.format(table=table))
    op.execute(DELETION)
