"""Digests of rows are made of each row's own digest, so that counting needs less memory.

A digest is replaced where it is still that of its rows; where it is not, a row was changed, and it stays, so that
a verification finds it.
"""

from alembic import op

revision = "0012"
down_revision = "0011"

DIGESTS = """
UPDATE ledger_eod.row_digests AS stored
SET digest = anew.digest
FROM (
    WITH parts AS (
        SELECT
            counted.run_id,
            counted.piece,
            counted.effective_date,
            present.id >> 10 AS part,
            sha256(convert_to(string_agg(present.row_text, '' ORDER BY present.id), 'UTF8')) AS digest_before,
            sha256(string_agg(present.row_digest, CAST('' AS bytea) ORDER BY present.id)) AS digest
        FROM ledger_eod.run_keys AS counted
        CROSS JOIN LATERAL unnest(counted.keys) AS spans (span)
        CROSS JOIN LATERAL (
            SELECT
                t.id,
                CAST(row(
                    t.id, t.transaction_id, t.source, t.destination, t.reference, trim_scale(t.amount),
                    trim_scale(t.precise_amount), t.precision, t.currency, t.status, t.parent_transaction,
                    EXTRACT(EPOCH FROM t.created_at), EXTRACT(EPOCH FROM COALESCE(t.effective_date, t.created_at))
                ) AS text) AS row_text,
                sha256(record_send(row(
                    CAST(t.id AS bigint), CAST(t.transaction_id AS text), CAST(t.source AS text),
                    CAST(t.destination AS text), CAST(t.reference AS text), trim_scale(t.amount),
                    trim_scale(t.precise_amount), CAST(t.precision AS bigint), CAST(t.currency AS text),
                    CAST(t.status AS text), CAST(t.parent_transaction AS text), CAST(t.created_at AS timestamp),
                    CAST(COALESCE(t.effective_date, t.created_at) AS timestamp)
                ))) AS row_digest
            FROM blnk.transactions AS t
            WHERE t.id >= lower(spans.span) AND t.id < upper(spans.span)
            ORDER BY t.id
        ) AS present
        WHERE counted.key_set = 'counted' AND counted.run_id IN (SELECT row_digests.run_id FROM ledger_eod.row_digests)
        GROUP BY counted.run_id, counted.piece, counted.effective_date, present.id >> 10
    )

    SELECT
        run_id,
        piece,
        effective_date,
        encode(sha256(string_agg(digest_before, CAST('' AS bytea) ORDER BY part)), 'hex') AS digest_before,
        encode(sha256(string_agg(digest, CAST('' AS bytea) ORDER BY part)), 'hex') AS digest
    FROM parts
    GROUP BY run_id, piece, effective_date
) AS anew
WHERE anew.run_id = stored.run_id
    AND anew.piece = stored.piece
    AND anew.effective_date = stored.effective_date
    AND anew.digest_before = stored.digest;
"""


def upgrade() -> None:
    op.execute("SET LOCAL statement_timeout = 0")
    op.execute("SET LOCAL client_encoding = 'UTF8'")
    op.execute("ALTER TABLE ledger_eod.row_digests DISABLE TRIGGER refuse_edit")
    op.execute(DIGESTS)
    op.execute("ALTER TABLE ledger_eod.row_digests ENABLE TRIGGER refuse_edit")
