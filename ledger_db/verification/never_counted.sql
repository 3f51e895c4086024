-- Transactions that no close has counted and none will look at: their keys lie at or below the base's highest, in no
-- set of its chain, and their recorded_xid does not say that they came since: who inserted them named that column. With
-- an id that this cluster has not given they would be in no cut for long.
-- cut, cluster_id: the verification's. base_run_id, base_genesis_run_id, base_max_transaction_key, base_seen,
-- base_is_foreign: the base close, as for close.older_keys.
-- Returns transaction_key, transaction_id, currency and amount in minor units, the first 1,000. Read-only.
-- Cost: one pass over the primary key, and the sets of keys of the base's chain.
WITH older AS MATERIALIZED (
-- include close.older_keys(base: base)
),

counted AS MATERIALIZED (
-- include close.chain_keys_by_block(key_set: counted; base: base)
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
LEFT JOIN counted ON counted.block = present.block
LEFT JOIN older ON older.block = present.block
CROSS JOIN
    LATERAL unnest(
        present.keys - COALESCE(counted.keys, int8multirange()) - COALESCE(older.keys, int8multirange())
    ) AS spans (span)
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
            AND (
                t.recorded_xid >= pg_snapshot_xmax(pg_current_snapshot())
                OR
-- include close.in_cut(key: t.id; xid: t.recorded_xid; cut: CAST(:cut AS pg_snapshot))
            )
        ORDER BY t.id
    ) AS found
ORDER BY found.transaction_key
LIMIT 1000
