-- The keys at or below a base's highest key that came since: what was recorded later, with a lower key,
-- and what a restored copy brought; of that, some may be pending at the base. Columns block and span.
-- base: the prefix of the base's parameters …_run_id, …_genesis_run_id, …_max_transaction_key.
-- …_seen: the base's cut, or when it is of another cluster (…_is_foreign) the first cut in this one.
-- Takes the parameters cut and cluster_id.
-- Cost: what was recorded since, by index; with a foreign base all keys.
SELECT
    straggler.id >> 13 AS block,
    int8range(straggler.id, straggler.id, '[]') AS span
FROM blnk.transactions AS straggler
WHERE straggler.id <= CAST(:{base}_max_transaction_key AS bigint)
    AND
-- include since_cut(xid: straggler.recorded_xid; cut: CAST(:{base}_seen AS pg_snapshot))
    AND
-- include in_cut(key: straggler.id; xid: straggler.recorded_xid; cut: CAST(:cut AS pg_snapshot))
    AND NOT
-- include is_counted(key: straggler.id; base: {base})
UNION ALL
SELECT
    brought.block,
    unnest(
-- include uncounted_keys(keys: brought.keys; block: brought.block; condition: TRUE; base: {base})
    ) AS span
FROM (
    SELECT
        block,
        keys * int8multirange(int8range(NULL, CAST(:{base}_max_transaction_key AS bigint), '[]')) AS keys
    FROM ledger_eod.cluster_keys
    WHERE cluster_id = CAST(:cluster_id AS bigint)
        AND CAST(:{base}_is_foreign AS boolean)
        AND block <= CAST(:{base}_max_transaction_key AS bigint) >> 13
) AS brought
