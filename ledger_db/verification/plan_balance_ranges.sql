-- Key ranges of at most batch_size balances each, of the balances that a verification covers: those that closes answer
-- for, with the key and currency with which they were captured, and those that no run has captured yet.
-- ledger_id, currency, balance_ids: only these balances, NULL for no restriction. batch_size: balances in a range.
-- Returns first_key, last_key and balance_count in ascending order, without overlap.
-- Read-only. Cost: one pass over the balances and one over the captured ones.
WITH answered AS (  -- FULL: the row of a captured balance may be gone
    SELECT
        live.ledger_id,
        balance_id,
        COALESCE(captured.balance_key, live.id) AS balance_key,
        COALESCE(captured.currency, live.currency) AS currency
    FROM ledger_eod.captured_balances AS captured
    FULL JOIN blnk.balances AS live USING (balance_id)
    WHERE captured.balance_key IS NOT NULL
        OR NOT EXISTS (  -- a captured balance that was given another id is answered for under its first one
            SELECT
            FROM ledger_eod.captured_balances AS renamed
            WHERE renamed.balance_key = live.id
        )
),

numbered AS (
    SELECT
        balance_key,
        (row_number() OVER (ORDER BY balance_key) - 1) / CAST(:batch_size AS bigint) AS batch
    FROM answered
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
