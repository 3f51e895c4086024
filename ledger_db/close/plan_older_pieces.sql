-- Store the older keys that a run looks at, and divide them into pieces of at most piece_size keys, but whole blocks.
-- run_id, business_date, cut, cluster_id: the run. base_…: its base, as for older_keys.
-- Cost: what is pending and what was recorded since the base, by index.
WITH older AS (
-- include older_keys(base: base)
),

written AS (
    INSERT INTO ledger_eod.run_keys (run_id, key_set, piece, effective_date, block, keys)
    SELECT
        CAST(:run_id AS bigint) AS run_id,
        'older' AS key_set,
        0 AS piece,
        CAST(:business_date AS date) AS effective_date,
        block,
        keys
    FROM older
),

sized AS (
    SELECT
        block,
        div(sum(sum(upper(span) - lower(span))) OVER (ORDER BY block) - 1, CAST(:piece_size AS bigint)) AS part
    FROM older
    CROSS JOIN LATERAL unnest(keys) AS span
    GROUP BY block
)

INSERT INTO ledger_eod.run_pieces (run_id, piece, work, first_key, last_key)
SELECT
    CAST(:run_id AS bigint) AS run_id,
    row_number() OVER (ORDER BY part) AS piece,
    'older' AS work,
    min(block) << 13 AS first_key,
    (max(block) << 13) + 8191 AS last_key
FROM sized
GROUP BY part
