-- The pieces that were counted in advance for a close, in key order. run_id: the close.
-- Returns first_key, last_key and row_count. Read-only. Cost: the pieces.
SELECT
    pieces.first_key,
    pieces.last_key,
    pieces.counted_count + pieces.settled_count + pieces.pending_count AS row_count
FROM ledger_eod.runs AS closing
CROSS JOIN ledger_eod.runs AS preparing
INNER JOIN ledger_eod.run_pieces AS pieces ON pieces.run_id = preparing.run_id
WHERE closing.run_id = CAST(:run_id AS bigint)
    AND
-- include is_prepared_for(preparing: preparing; closing: closing)
    AND pieces.done_at IS NOT NULL
    AND pieces.last_key <= closing.max_transaction_key
ORDER BY pieces.first_key
