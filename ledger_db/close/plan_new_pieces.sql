-- Divide a range of new keys into pieces of at most piece_size rows each, and one at least. They lie end to end. More
-- than one are an even number of a like size, if there are so many rows: two workers are then done at the same time.
-- run_id: the run. after_key, up_to_key: above the former, up to the latter.
-- part_mask: 1,023 for pieces that end with a part of 1,024 keys, so that they may be a little larger; else 0.
-- Cost: two passes over these keys, by primary key alone.
WITH RECURSIVE present AS MATERIALIZED (  -- else it is counted for each piece
    SELECT
        count(*) AS row_count,
        CASE
            WHEN count(*) <= CAST(:piece_size AS bigint) THEN 1
            ELSE LEAST(2 * ((count(*) - 1) / (2 * CAST(:piece_size AS bigint)) + 1), count(*))
        END AS piece_count
    FROM blnk.transactions
    WHERE id > CAST(:after_key AS bigint) AND id <= CAST(:up_to_key AS bigint)
),

last_rows AS (  -- of every piece but the last one, which has the keys above its rows, too
    SELECT
        CAST(0 AS bigint) AS part,
        CAST(:after_key AS bigint) AS key
    UNION ALL
    SELECT
        last_rows.part + 1 AS part,
        (
            SELECT t.id
            FROM blnk.transactions AS t
            WHERE t.id > last_rows.key AND t.id <= CAST(:up_to_key AS bigint)
            ORDER BY t.id
            LIMIT 1 OFFSET sizes.row_count - 1
        ) AS key
    FROM last_rows
    CROSS JOIN present
    CROSS JOIN
        LATERAL (
            SELECT
                (last_rows.part + 1) * present.row_count / present.piece_count
                - last_rows.part * present.row_count / present.piece_count AS row_count
        ) AS sizes
    WHERE last_rows.part + 1 < present.piece_count
),

pieces AS (
    SELECT LEAST(key | CAST(:part_mask AS bigint), CAST(:up_to_key AS bigint)) AS last_key
    FROM last_rows
    WHERE part > 0
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
