"""A close's digests cover the balances that other runs since its base captured, or found gone.

Only an open run may capture a balance, or note that one is gone.
"""

from alembic import op

revision = "0015"
down_revision = "0014"

# Closes that are certified already are digested as they are now. Which runs a close covers is found first, so that the
# cost is one pass over the balances, however many closes there are.
DIGESTS = """
ALTER TABLE ledger_eod.figure_digests DISABLE TRIGGER refuse_insert;
INSERT INTO ledger_eod.figure_digests (run_id, subject, digest)
WITH others AS (
    SELECT first_run_id AS run_id FROM ledger_eod.captured_balances
    UNION
    SELECT gone_run_id AS run_id FROM ledger_eod.captured_balances WHERE gone_run_id IS NOT NULL
),
covered AS (
    SELECT closing.run_id, others.run_id AS other_run_id
    FROM ledger_eod.runs AS closing
    INNER JOIN others
        ON others.run_id <= closing.run_id
            AND (closing.base_run_id IS NULL OR others.run_id > closing.base_run_id)
    WHERE closing.kind = 'close' AND closing.status = 'certified'
),
balances AS (
    SELECT covered.run_id, captured.balance_key
    FROM covered
    INNER JOIN ledger_eod.captured_balances AS captured ON captured.first_run_id = covered.other_run_id
    WHERE covered.other_run_id < covered.run_id
    UNION
    SELECT covered.run_id, captured.balance_key
    FROM covered
    INNER JOIN ledger_eod.captured_balances AS captured ON captured.gone_run_id = covered.other_run_id
),
lines AS (
    SELECT
        balances.run_id,
        captured.balance_key >> 10 AS part,
        CAST(row(
            captured.balance_key, captured.balance_id, captured.currency, captured.first_run_id,
            CASE WHEN captured.gone_run_id <= balances.run_id THEN captured.gone_run_id END
        ) AS text) AS line
    FROM balances
    INNER JOIN ledger_eod.captured_balances AS captured USING (balance_key)
),
parts AS (
    SELECT
        run_id,
        part,
        sha256(convert_to(string_agg(line, '' ORDER BY line COLLATE "C"), 'UTF8')) AS digest
    FROM lines
    GROUP BY run_id, part
)
SELECT run_id, 'balances since the base', encode(sha256(string_agg(digest, CAST('' AS bytea) ORDER BY part)), 'hex')
FROM parts
GROUP BY run_id;
ALTER TABLE ledger_eod.figure_digests ENABLE TRIGGER refuse_insert;
"""

TRIGGERS = """
CREATE OR REPLACE FUNCTION ledger_eod.refuse_finding_gone() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF NOT EXISTS (SELECT FROM ledger_eod.runs WHERE run_id = NEW.gone_run_id AND status = 'open') THEN
        RAISE EXCEPTION 'run % is not open: it finds no balance gone', NEW.gone_run_id
            USING ERRCODE = 'restrict_violation';
    END IF;
    RETURN NEW;
END $$;

CREATE OR REPLACE FUNCTION ledger_eod.refuse_capture() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    refused_run_id bigint;
BEGIN
    SELECT written.first_run_id INTO refused_run_id
    FROM (SELECT DISTINCT first_run_id FROM written) AS written
    LEFT JOIN ledger_eod.runs ON runs.run_id = written.first_run_id AND runs.status = 'open'
    WHERE runs.run_id IS NULL
    LIMIT 1;
    IF FOUND THEN
        RAISE EXCEPTION 'run % is not open: it captures no balance', refused_run_id
            USING ERRCODE = 'restrict_violation';
    END IF;
    RETURN NULL;
END $$;
DROP TRIGGER IF EXISTS refuse_gone ON ledger_eod.captured_balances;
CREATE TRIGGER refuse_gone BEFORE UPDATE ON ledger_eod.captured_balances
FOR EACH ROW EXECUTE FUNCTION ledger_eod.refuse_finding_gone();
DROP TRIGGER IF EXISTS refuse_insert ON ledger_eod.captured_balances;
CREATE TRIGGER refuse_insert AFTER INSERT ON ledger_eod.captured_balances REFERENCING NEW TABLE AS written
FOR EACH STATEMENT EXECUTE FUNCTION ledger_eod.refuse_capture();
"""


def upgrade() -> None:
    op.execute("SET LOCAL statement_timeout = 0")
    op.execute(DIGESTS)
    op.execute(TRIGGERS)
