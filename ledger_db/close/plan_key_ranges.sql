-- Key ranges of at most batch_size balances each, of the balances that lack a snapshot of this date and kind.
-- business_date, kind: whose snapshots. max_balance_key: balances created later belong to the next run.
-- batch_size: balances in a range. Returns first_key, last_key and balance_count in ascending order, without overlap.
-- Read-only. Cost: one pass over two primary keys.
WITH missing AS (
    SELECT balances.id AS balance_key
    FROM blnk.balances
    WHERE balances.id <= CAST(:max_balance_key AS bigint)
        AND NOT EXISTS (
            SELECT FROM ledger_eod.balance_snapshots AS snapshots
            WHERE snapshots.business_date = CAST(:business_date AS date)
                AND snapshots.kind = CAST(:kind AS ledger_eod.run_kind)
                AND snapshots.balance_key = balances.id
        )
),

numbered AS (
    SELECT
        balance_key,
        (row_number() OVER (ORDER BY balance_key) - 1) / CAST(:batch_size AS bigint) AS batch
    FROM missing
)

SELECT
    min(balance_key) AS first_key,
    max(balance_key) AS last_key,
    count(*) AS balance_count
FROM numbered
GROUP BY batch
ORDER BY batch
