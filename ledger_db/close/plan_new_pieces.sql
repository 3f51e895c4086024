-- Divide a range of new keys into pieces of at most piece_size rows each, and one at least. They lie end to end. More
-- than one are an even number of a like size, if there are so many rows: two workers are then done at the same time.
-- run_id: the run. after_key, up_to_key: above the former, up to the latter.
-- part_mask: 1,023 for pieces that end with a part of 1,024 keys, so that they may be a little larger; else 0.
-- Cost: two passes over these keys, by primary key.
WITH present AS (
    SELECT
        count(*) AS row_count,
        CASE
            WHEN count(*) <= CAST(:piece_size AS bigint) THEN 1
            ELSE 2 * ((count(*) - 1) / (2 * CAST(:piece_size AS bigint)) + 1)
        END AS piece_count
    FROM blnk.transactions
    WHERE id > CAST(:after_key AS bigint) AND id <= CAST(:up_to_key AS bigint)
),

numbered AS (
    SELECT
        t.id,
        (row_number() OVER (ORDER BY t.id) - 1) * present.piece_count / present.row_count AS part
    FROM blnk.transactions AS t
    CROSS JOIN present
    WHERE t.id > CAST(:after_key AS bigint) AND t.id <= CAST(:up_to_key AS bigint)
),

ends AS (
    SELECT LEAST(max(id) | CAST(:part_mask AS bigint), CAST(:up_to_key AS bigint)) AS last_key
    FROM numbered
    GROUP BY part
),

pieces AS (  -- the last one has the keys above its rows, too
    SELECT last_key FROM ends
    WHERE last_key < (SELECT max(every_end.last_key) FROM ends AS every_end)
    UNION
    SELECT CAST(:up_to_key AS bigint) AS last_key
)

INSERT INTO ledger_eod.run_pieces (run_id, piece, work, first_key, last_key)
SELECT
    CAST(:run_id AS bigint) AS run_id,
    row_number() OVER (ORDER BY last_key) + (
        SELECT COALESCE(max(planned.piece), 0) FROM ledger_eod.run_pieces AS planned
        WHERE planned.run_id = CAST(:run_id AS bigint)
    ) AS piece,
    'new' AS work,
    lag(last_key, 1, CAST(:after_key AS bigint)) OVER (ORDER BY last_key) + 1 AS first_key,
    last_key
FROM pieces
