"""A close's digests cover the balances that other runs since its base captured, or found gone."""

from alembic import op

revision = "0015"
down_revision = "0014"

# Closes that are certified already are digested as they are now.
DIGESTS = """
ALTER TABLE ledger_eod.figure_digests DISABLE TRIGGER refuse_insert;
INSERT INTO ledger_eod.figure_digests (run_id, subject, digest)
SELECT run_id, 'balances since the base', encode(sha256(string_agg(digest, CAST('' AS bytea) ORDER BY part)), 'hex')
FROM (
    SELECT
        run_id,
        part,
        sha256(convert_to(string_agg(line, '' ORDER BY line COLLATE "C"), 'UTF8')) AS digest
    FROM (
        SELECT
            closing.run_id,
            captured.balance_key >> 10 AS part,
            CAST(row(
                captured.balance_key, captured.balance_id, captured.currency, captured.first_run_id,
                CASE WHEN captured.gone_run_id <= closing.run_id THEN captured.gone_run_id END
            ) AS text) AS line
        FROM ledger_eod.captured_balances AS captured
        INNER JOIN ledger_eod.runs AS closing
            ON (
                captured.first_run_id > COALESCE(closing.base_run_id, 0)
                AND captured.first_run_id < closing.run_id
            )
            OR (
                captured.gone_run_id > COALESCE(closing.base_run_id, 0)
                AND captured.gone_run_id <= closing.run_id
            )
        WHERE closing.kind = 'close' AND closing.status = 'certified'
    ) AS lines
    GROUP BY run_id, part
) AS parts
GROUP BY run_id;
ALTER TABLE ledger_eod.figure_digests ENABLE TRIGGER refuse_insert;
"""


def upgrade() -> None:
    op.execute("SET LOCAL statement_timeout = 0")
    op.execute(DIGESTS)
