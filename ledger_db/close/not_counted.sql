-- The rows of a relation that are in a cut and that no close of a base's chain has counted, of any date.
-- relation: has transaction_key and recorded_xid. columns: what to select. condition: holds for every row.
-- base: the prefix of the base's parameters, as for older_keys. older: a CTE with the rows of older_keys.
-- Takes the parameters cut and cluster_id.
-- Cost: keys above the base's highest, and the older ones, by primary key.
SELECT
    {columns}
FROM {relation}
WHERE {relation}.transaction_key > CAST(:{base}_max_transaction_key AS bigint)
    AND
-- include in_cut(key: {relation}.transaction_key; xid: {relation}.recorded_xid; cut: CAST(:cut AS pg_snapshot))
    AND {condition}
UNION ALL
SELECT found.*
FROM {older}
CROSS JOIN LATERAL unnest({older}.keys) AS spans (span)
CROSS JOIN
    LATERAL (  -- ORDER BY, so that each span stays a look-up: planned as a join, it may read the whole relation
        SELECT
            {columns}
        FROM {relation}
        WHERE {relation}.transaction_key >= lower(spans.span)
            AND {relation}.transaction_key < upper(spans.span)
            AND
-- include in_cut(key: {relation}.transaction_key; xid: {relation}.recorded_xid; cut: CAST(:cut AS pg_snapshot))
            AND {condition}
        ORDER BY {relation}.transaction_key
    ) AS found
