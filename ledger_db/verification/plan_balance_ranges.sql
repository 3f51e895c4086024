-- Key ranges of at most batch_size balances each, of the balances that a verification covers.
-- ledger_id, currency, balance_ids: only these balances, NULL for no restriction. batch_size: balances in a range.
-- Returns first_key, last_key and balance_count in ascending order, without overlap.
-- Read-only. Cost: one pass over the balances.
WITH numbered AS (
    SELECT
        id AS balance_key,
        (row_number() OVER (ORDER BY id) - 1) / CAST(:batch_size AS bigint) AS batch
    FROM blnk.balances
    WHERE (CAST(:ledger_id AS text) IS NULL OR ledger_id = CAST(:ledger_id AS text))
        AND (CAST(:currency AS text) IS NULL OR currency = CAST(:currency AS text))
        AND (CAST(:balance_ids AS text[]) IS NULL OR balance_id = ANY(CAST(:balance_ids AS text[])))
)

SELECT
    min(balance_key) AS first_key,
    max(balance_key) AS last_key,
    count(*) AS balance_count
FROM numbered
GROUP BY batch
ORDER BY batch
