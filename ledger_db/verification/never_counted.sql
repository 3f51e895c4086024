-- Transactions that no close has counted and none will look at: their keys lie at or below the base's highest, in no
-- set of its chain, and their recorded_xid does not say that they came since: who inserted them named that column.
-- cut, cluster_id: the verification's. base_run_id, base_genesis_run_id, base_max_transaction_key, base_seen,
-- base_is_foreign: the base close, as for close.older_keys.
-- Returns transaction_key, transaction_id, currency and amount in minor units, the first 1,000. Read-only.
-- Cost: one pass over the primary key, and the sets of keys of the base's chain.
WITH older AS MATERIALIZED (
-- include close.older_keys(base: base)
),

placed AS MATERIALIZED (
    SELECT
        spans.block,
        range_agg(spans.span) AS keys
    FROM (
        SELECT
            run_keys.block,
            unnest(run_keys.keys) AS span
        FROM ledger_eod.run_keys
        INNER JOIN ledger_eod.runs AS closing ON closing.run_id = run_keys.run_id
        WHERE run_keys.key_set = 'counted'
            AND
-- include close.in_chain(
--     run: closing
--     genesis_run_id: CAST(:base_genesis_run_id AS bigint)
--     run_id: CAST(:base_run_id AS bigint)
-- )
        UNION ALL
        SELECT
            older.block,
            unnest(older.keys) AS span
        FROM older
    ) AS spans
    GROUP BY spans.block
),

present AS MATERIALIZED (
    SELECT
        t.id >> 13 AS block,
        range_agg(int8range(t.id, t.id, '[]')) AS keys
    FROM blnk.transactions AS t
    WHERE t.id <= CAST(:base_max_transaction_key AS bigint)
    GROUP BY t.id >> 13
)

SELECT found.*
FROM present
LEFT JOIN placed ON placed.block = present.block
CROSS JOIN LATERAL unnest(present.keys - COALESCE(placed.keys, int8multirange())) AS spans (span)
CROSS JOIN
    LATERAL (  -- ORDER BY, so that each span stays a look-up
        SELECT
            t.id AS transaction_key,
            t.transaction_id,
            t.currency,
            COALESCE(minor.amount, 0) AS amount
        FROM blnk.transactions AS t
        CROSS JOIN
            LATERAL (
-- include postings.minor_amount
            ) AS minor
        WHERE t.id >= lower(spans.span)
            AND t.id < upper(spans.span)
            AND
-- include close.in_cut(key: t.id; xid: t.recorded_xid; cut: CAST(:cut AS pg_snapshot))
        ORDER BY t.id
    ) AS found
ORDER BY found.transaction_key
LIMIT 1000
