-- Lock the balances of the transactions that this database transaction recorded after a key, and read their versions.
-- after_key: only transactions with a higher key. Returns balance_key and version in key order, which is also the order
-- of locking: two of these statements wait for each other and cannot deadlock.
-- The lock is FOR NO KEY UPDATE: FOR UPDATE would also wait for the foreign-key locks of other sessions' inserts.
-- Cost: this transaction's rows, one range of the index on recorded_xid.
WITH touched AS (
    SELECT source AS balance_id
    FROM blnk.transactions
    WHERE recorded_xid = pg_current_xact_id() AND id > CAST(:after_key AS bigint)
    UNION
    SELECT destination AS balance_id
    FROM blnk.transactions
    WHERE recorded_xid = pg_current_xact_id() AND id > CAST(:after_key AS bigint)
)

SELECT
    stored.id AS balance_key,
    stored.version
FROM blnk.balances AS stored
WHERE stored.balance_id IN (SELECT touched.balance_id FROM touched)
ORDER BY stored.id
FOR NO KEY UPDATE OF stored
