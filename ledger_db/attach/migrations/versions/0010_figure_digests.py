"""Digests of activity, exceptions, totals, keys, pieces and captured balances, for each certified run."""

from alembic import op

revision = "0010"
down_revision = "0009"

TABLE = """
CREATE TABLE ledger_eod.figure_digests (
    run_id bigint NOT NULL,
    subject text NOT NULL,
    digest varchar(64) NOT NULL,
    CONSTRAINT pk_figure_digests PRIMARY KEY (run_id, subject),
    CONSTRAINT fk_figure_digests_run_id FOREIGN KEY (run_id) REFERENCES ledger_eod.runs (run_id)
);
"""

# Runs that are certified already are digested as they are now.
DIGESTS = """
INSERT INTO ledger_eod.figure_digests (run_id, subject, digest)
SELECT certified.run_id, figures.subject, figures.digest
FROM ledger_eod.runs AS certified
CROSS JOIN LATERAL (
    WITH lines AS (
        SELECT
            'activity' AS subject,
            balance_key >> 10 AS part,
            CAST(row(
                balance_key, effective_date - DATE '2000-01-01', piece, is_late, posting_count,
                trim_scale(credit_balance), trim_scale(debit_balance), trim_scale(inflight_credit_balance),
                trim_scale(inflight_debit_balance), last_transaction_key
            ) AS text) AS line
        FROM ledger_eod.activity
        WHERE run_id = certified.run_id
        UNION ALL
        SELECT
            'exceptions' AS subject,
            transaction_key >> 10 AS part,
            CAST(row(
                transaction_key, currency, piece, cause, trim_scale(difference), trim_scale(inflight_difference)
            ) AS text) AS line
        FROM ledger_eod.run_exceptions
        WHERE run_id = certified.run_id
        UNION ALL
        SELECT
            'totals' AS subject,
            0 AS part,
            CAST(row(
                currency, balance_count, trim_scale(credit_balance), trim_scale(debit_balance),
                trim_scale(inflight_credit_balance), trim_scale(inflight_debit_balance),
                trim_scale(itemised_difference), trim_scale(itemised_inflight_difference)
            ) AS text) AS line
        FROM ledger_eod.run_totals
        WHERE run_id = certified.run_id
        UNION ALL
        SELECT
            'keys' AS subject,
            block AS part,
            CAST(row(key_set, piece, effective_date - DATE '2000-01-01', block, keys) AS text) AS line
        FROM ledger_eod.run_keys
        WHERE run_id = certified.run_id
        UNION ALL
        SELECT
            'pieces' AS subject,
            0 AS part,
            CAST(row(
                piece, work, first_key, last_key, counted_count, settled_count, pending_count, gone_count
            ) AS text) AS line
        FROM ledger_eod.run_pieces
        WHERE run_id = certified.run_id
        UNION ALL
        SELECT
            'captured balances' AS subject,
            balance_key >> 10 AS part,
            CAST(row(balance_key, balance_id, currency) AS text) AS line
        FROM ledger_eod.captured_balances
        WHERE first_run_id = certified.run_id
    ),

    parts AS (
        SELECT
            subject,
            part,
            sha256(convert_to(string_agg(line, '' ORDER BY line COLLATE "C"), 'UTF8')) AS digest
        FROM lines
        GROUP BY subject, part
    )

    SELECT
        subject,
        encode(sha256(string_agg(digest, CAST('' AS bytea) ORDER BY part)), 'hex') AS digest
    FROM parts
    GROUP BY subject
) AS figures
WHERE certified.status = 'certified';
"""

TRIGGERS = """
CREATE TRIGGER refuse_insert AFTER INSERT ON ledger_eod.figure_digests REFERENCING NEW TABLE AS written
FOR EACH STATEMENT EXECUTE FUNCTION ledger_eod.refuse_certified_insert();
CREATE TRIGGER refuse_edit BEFORE UPDATE ON ledger_eod.figure_digests
FOR EACH ROW EXECUTE FUNCTION ledger_eod.refuse_change();
CREATE TRIGGER refuse_delete BEFORE DELETE ON ledger_eod.figure_digests
FOR EACH ROW EXECUTE FUNCTION ledger_eod.refuse_certified_delete();
CREATE TRIGGER refuse_truncate BEFORE TRUNCATE ON ledger_eod.figure_digests
FOR EACH STATEMENT EXECUTE FUNCTION ledger_eod.refuse_change();
"""


def upgrade() -> None:
    op.execute("SET LOCAL statement_timeout = 0")
    op.execute(TABLE)
    op.execute(DIGESTS)
    op.execute(TRIGGERS)
