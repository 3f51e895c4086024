-- Divide a run's new keys into pieces of at most piece_size rows each. Their ranges lie end to end.
-- run_id: the run. base_max_transaction_key, max_transaction_key: above the former, up to the latter.
-- Cost: one pass over the new keys, by primary key.
WITH numbered AS (
    SELECT
        id,
        (row_number() OVER (ORDER BY id) - 1) / CAST(:piece_size AS bigint) AS part
    FROM blnk.transactions
    WHERE id > CAST(:base_max_transaction_key AS bigint) AND id <= CAST(:max_transaction_key AS bigint)
),

parts AS (
    SELECT
        part,
        max(id) AS last_key
    FROM numbered
    GROUP BY part
)

INSERT INTO ledger_eod.run_pieces (run_id, piece, work, first_key, last_key)
SELECT
    CAST(:run_id AS bigint) AS run_id,
    row_number() OVER (ORDER BY part) + (
        SELECT COALESCE(max(planned.piece), 0) FROM ledger_eod.run_pieces AS planned
        WHERE planned.run_id = CAST(:run_id AS bigint)
    ) AS piece,
    'new' AS work,
    lag(last_key, 1, CAST(:base_max_transaction_key AS bigint)) OVER (ORDER BY part) + 1 AS first_key,
    CASE WHEN lead(part) OVER (ORDER BY part) IS NULL THEN CAST(:max_transaction_key AS bigint) ELSE last_key END
        AS last_key
FROM parts
