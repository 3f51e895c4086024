-- Store the older keys that a run looks at and that were not pending at its base, and divide all of its older keys into
-- pieces of at most piece_size keys, but whole blocks.
-- run_id, business_date, cut, cluster_id: the run. base_…: its base, as for older_keys.
-- Cost: what is pending and what was recorded since the base, by index.
WITH carried AS MATERIALIZED (
-- include pending_keys(base: base)
),

straggling AS MATERIALIZED (  -- the others
    SELECT
        came_since.block,
        came_since.keys - COALESCE(carried.keys, int8multirange()) AS keys
    FROM (
        SELECT
            spans.block,
            range_agg(spans.span) AS keys
        FROM (
-- include straggling_keys(base: base)
        ) AS spans
        GROUP BY spans.block
    ) AS came_since
    LEFT JOIN carried ON carried.block = came_since.block
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
    FROM straggling
    WHERE NOT isempty(keys)
),

sized AS (
    SELECT
        block,
        div(sum(sum(upper(span) - lower(span))) OVER (ORDER BY block) - 1, CAST(:piece_size AS bigint)) AS part
    FROM (
        SELECT
            block,
            unnest(keys) AS span
        FROM carried
        UNION ALL
        SELECT
            block,
            unnest(keys) AS span
        FROM straggling
    ) AS spans
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
