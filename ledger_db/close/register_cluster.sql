-- Remember this cluster with a first cut, and the keys of all transactions that are visible in it. One MVCC snapshot.
-- system_identifier: the cluster. Cost: one pass over the primary key.
WITH brought AS (
    SELECT
        id >> 13 AS block,
        max(id) AS max_key,
        range_agg(int8range(id, id, '[]')) AS keys
    FROM blnk.transactions
    GROUP BY block
),

registered AS (
    INSERT INTO ledger_eod.clusters (
        system_identifier, cut, max_transaction_key, max_recorded_xid, transactions_oid
    )
    SELECT
        CAST(:system_identifier AS text) AS system_identifier,
        pg_current_snapshot() AS cut,
        COALESCE((SELECT max(brought.max_key) FROM brought), CAST('-9223372036854775808' AS bigint))
            AS max_transaction_key,
        (
            SELECT recorded_xid FROM blnk.transactions
            WHERE recorded_xid IS NOT NULL
            ORDER BY recorded_xid DESC LIMIT 1
        ) AS max_recorded_xid,
        CAST(CAST('blnk.transactions' AS regclass) AS oid) AS transactions_oid
    RETURNING cluster_id
)

INSERT INTO ledger_eod.cluster_keys (cluster_id, block, keys)
SELECT
    registered.cluster_id,
    brought.block,
    brought.keys
FROM brought
CROSS JOIN registered
