-- The rows of a close from before rows were counted by their keys, by effective business date: their number, what they
-- post and hold, and a checksum of them. The rows are those of the keys that it counted, but for statuses that never
-- count. run_id: the run. posted_amount, held_amount: minor units, unsigned for postings and holds, negative for what
-- leaves one.
-- checksum: the sum of 128 bits of each row's SHA-256, as two halves, so that order and grouping do not matter.
-- Read-only. Cost: these rows, by primary key.
WITH
-- include postings.postings
,

digested AS (
    SELECT
        counted.effective_date,
        present.posted,
        present.held,
        present.digest
    FROM ledger_eod.run_keys AS counted
    CROSS JOIN LATERAL unnest(counted.keys) AS spans (span)
    CROSS JOIN
        LATERAL (  -- ORDER BY, so that each span stays a look-up: as a join it may read the whole ledger
            SELECT
                provable.posted,
                provable.held,
                encode(sha256(convert_to(CAST(jsonb_build_array(
                    t.id, t.transaction_id, t.source, t.destination, t.reference, trim_scale(t.amount),
                    trim_scale(t.precise_amount), t.precision, t.currency, t.status,
                    EXTRACT(EPOCH FROM t.created_at), EXTRACT(EPOCH FROM t.effective_date), t.parent_transaction
                ) AS text), 'UTF8')), 'hex') AS digest
            FROM blnk.transactions AS t
            INNER JOIN provable_transactions AS provable ON provable.transaction_key = t.id
            WHERE t.id >= lower(spans.span) AND t.id < upper(spans.span)
            ORDER BY t.id
        ) AS present
    WHERE counted.run_id = CAST(:run_id AS bigint) AND counted.key_set = 'counted'
)

SELECT
    effective_date,
    count(*) AS transaction_count,
    sum(posted) AS posted_amount,
    sum(held) AS held_amount,
    concat_ws(
        ':',
        sum(CAST(CAST(('x' || substr(digest, 1, 16)) AS bit(64)) AS bigint)),
        sum(CAST(CAST(('x' || substr(digest, 17, 16)) AS bit(64)) AS bigint))
    ) AS checksum
FROM digested
GROUP BY effective_date
ORDER BY effective_date
