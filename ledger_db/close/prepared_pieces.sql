-- The pieces that were counted in advance for a close, in key order, with the number of rows that they have now. One
-- that has grown far beyond piece_size is left out: if it does not fit, it would have to be counted in one statement.
-- run_id, max_transaction_key: the close. Returns first_key, last_key and row_count. Read-only.
-- Cost: the keys in these pieces, by index.
SELECT
    pieces.first_key,
    pieces.last_key,
    present.row_count
FROM (
-- include done_in_advance
) AS pieces
CROSS JOIN
    LATERAL (
        SELECT count(*) AS row_count
        FROM blnk.transactions AS t
        WHERE t.id BETWEEN pieces.first_key AND pieces.last_key
    ) AS present
WHERE pieces.last_key <= CAST(:max_transaction_key AS bigint)
    AND present.row_count <= 2 * CAST(:piece_size AS bigint) + 2048
ORDER BY pieces.first_key
