-- A transaction with an id that this cluster has not given and that it did not begin with; no row in a sound ledger.
-- cluster_id: this cluster. Returns transaction_id, recorded_xid, and beyond: in words, where such rows are.
-- What is visible here was recorded earlier, so that a later number comes from elsewhere. A ledger that came here with
-- higher numbers has many such rows: one that was copied in since is told by a key above the newest close's.
-- Read-only. Cost: one index probe; with such numbers also the keys above the newest close's.
WITH here AS MATERIALIZED (
    SELECT
        clusters.cluster_id,
        clusters.max_transaction_key,
        clusters.max_recorded_xid,
        pg_snapshot_xmax(pg_current_snapshot()) AS next_xid
    FROM ledger_eod.clusters
    WHERE clusters.cluster_id = CAST(:cluster_id AS bigint)
),

closed AS MATERIALIZED (  -- asked for only where old rows have higher numbers
    SELECT
        GREATEST(
            here.max_transaction_key,
            (
                SELECT max(runs.max_transaction_key)
                FROM ledger_eod.runs
                WHERE runs.cluster_id = here.cluster_id AND runs.kind = 'close' AND runs.status = 'certified'
            )
        ) AS last_key
    FROM here
),

beyond_every_id AS (
    SELECT
        t.transaction_id,
        t.recorded_xid
    FROM blnk.transactions AS t
    WHERE t.recorded_xid >= (SELECT here.next_xid FROM here)
        AND t.recorded_xid > COALESCE((SELECT here.max_recorded_xid FROM here), CAST('0' AS xid8))
    ORDER BY t.recorded_xid
    LIMIT 1
),

beyond_every_key AS (
    SELECT
        t.transaction_id,
        t.recorded_xid
    FROM blnk.transactions AS t
    WHERE t.id > (SELECT closed.last_key FROM closed)
        AND t.recorded_xid >= (SELECT here.next_xid FROM here)
        AND (SELECT here.max_recorded_xid >= here.next_xid FROM here)
    ORDER BY t.id
    LIMIT 1
)

SELECT
    beyond_every_id.transaction_id,
    CAST(beyond_every_id.recorded_xid AS text) AS recorded_xid,
    CASE
        WHEN here.max_recorded_xid >= here.next_xid THEN 'above ' || CAST(here.max_recorded_xid AS text)
        ELSE 'not below ' || CAST(here.next_xid AS text)
    END AS beyond
FROM beyond_every_id
CROSS JOIN here
UNION ALL
SELECT
    beyond_every_key.transaction_id,
    CAST(beyond_every_key.recorded_xid AS text) AS recorded_xid,
    'not below ' || CAST(here.next_xid AS text) || ' and id is above ' || CAST(closed.last_key AS text) AS beyond
FROM beyond_every_key
CROSS JOIN here
CROSS JOIN closed
LIMIT 1
