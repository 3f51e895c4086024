-- Key ranges of at most batch_size balances each, of the balances that lack a snapshot of this date and kind.
-- business_date, kind: whose snapshots. run_id: balances captured by later runs belong to those.
-- batch_size: balances in a range. Returns first_key, last_key and balance_count in ascending order, without overlap.
-- Read-only. Cost: one pass over two primary keys.
WITH missing AS (
    SELECT captured.balance_key
    FROM ledger_eod.captured_balances AS captured
    WHERE captured.first_run_id <= CAST(:run_id AS bigint)
        AND NOT EXISTS (
            SELECT FROM ledger_eod.balance_snapshots AS snapshots
            WHERE snapshots.business_date = CAST(:business_date AS date)
                AND snapshots.kind = CAST(:kind AS ledger_eod.run_kind)
                AND snapshots.balance_key = captured.balance_key
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
