-- What does not prove about the keys of a run: a row for each fault, with the keys that it concerns.
-- run_id, max_transaction_key: the run. is_whole: it stores all that it leaves pending; else what was pending at its
-- base and is not counted stays so unsaid. base_…: its base, as for pending_keys; NULL and below every key without one.
-- Read-only. Cost: the run's sets, what was pending at its base, and the sets of its chain in the same blocks.
WITH own AS MATERIALIZED (
    SELECT
        key_set,
        piece,
        block,
        unnest(keys) AS span
    FROM ledger_eod.run_keys
    WHERE run_id = CAST(:run_id AS bigint)
),

blocks AS MATERIALIZED (
    SELECT
        block,
        COALESCE(range_agg(span) FILTER (WHERE key_set = 'older'), int8multirange()) AS older,
        COALESCE(range_agg(span) FILTER (WHERE key_set = 'counted'), int8multirange()) AS counted,
        COALESCE(range_agg(span) FILTER (WHERE key_set = 'pending'), int8multirange()) AS pending,
        COALESCE(range_agg(span) FILTER (WHERE key_set = 'settling'), int8multirange()) AS settling,
        COALESCE(range_agg(span) FILTER (WHERE key_set = 'released'), int8multirange()) AS released,
        COALESCE(range_agg(span) FILTER (WHERE key_set = 'waiting'), int8multirange()) AS waiting,
        COALESCE(sum(upper(span) - lower(span)) FILTER (WHERE key_set IN ('counted', 'pending')), 0) AS placed_count
    FROM own
    GROUP BY block
),

carried AS MATERIALIZED (  -- pending at the base
-- include pending_keys(base: base)
),

waited AS MATERIALIZED (  -- for their holds, at the base
-- include keys_by_block(run_id: CAST(:base_run_id AS bigint); key_set: waiting)
),

faults AS (
    SELECT
        'keys are counted twice, or counted and pending' AS fault,
        block,
        counted + pending AS keys
    FROM blocks
    WHERE placed_count <> (SELECT COALESCE(sum(upper(span) - lower(span)), 0) FROM unnest(counted + pending) AS span)
    UNION ALL
    SELECT
        'keys were looked at and are in no set' AS fault,
        block,
        older - counted - pending AS keys
    FROM blocks
    UNION ALL
    SELECT
        'keys are neither new nor among the older ones' AS fault,
        blocks.block,
        (blocks.counted + blocks.pending) - blocks.older - COALESCE(carried.keys, int8multirange())
        - int8multirange(
            int8range(CAST(:base_max_transaction_key AS bigint), CAST(:max_transaction_key AS bigint), '(]')
        ) AS keys
    FROM blocks
    LEFT JOIN carried ON carried.block = blocks.block
    UNION ALL
    SELECT
        'keys were pending and are in no set' AS fault,
        carried.block,
        carried.keys - COALESCE(blocks.counted + blocks.pending, int8multirange()) AS keys
    FROM carried
    LEFT JOIN blocks ON blocks.block = carried.block
    WHERE CAST(:is_whole AS boolean)
    UNION ALL
    SELECT
        'keys were pending and are in no piece' AS fault,
        carried.block,
        carried.keys
    FROM carried
    LEFT JOIN ledger_eod.run_pieces AS pieces
        ON pieces.run_id = CAST(:run_id AS bigint)
            AND pieces.work = 'older'
            AND carried.block BETWEEN pieces.first_key >> 13 AND pieces.last_key >> 13
    WHERE pieces.piece IS NULL
    UNION ALL
    SELECT
        'keys were counted before' AS fault,
        blocks.block,
        blocks.counted * earlier.keys AS keys
    FROM blocks
    INNER JOIN ledger_eod.run_keys AS earlier ON earlier.block = blocks.block AND earlier.key_set = 'counted'
    INNER JOIN ledger_eod.runs AS counting ON counting.run_id = earlier.run_id
    WHERE
-- include in_chain(
--     run: counting
--     genesis_run_id: CAST(:base_genesis_run_id AS bigint)
--     run_id: CAST(:base_run_id AS bigint)
-- )
    UNION ALL
    SELECT
        'holds to release are neither released nor waiting' AS fault,
        COALESCE(blocks.block, waited.block) AS block,
        (COALESCE(blocks.settling, int8multirange()) + COALESCE(waited.keys, int8multirange()))
        - COALESCE(blocks.released + blocks.waiting, int8multirange()) AS keys
    FROM blocks
    FULL JOIN waited ON waited.block = blocks.block
    UNION ALL
    SELECT
        'holds are released that were not to be, or wait as well' AS fault,
        blocks.block,
        (blocks.released + blocks.waiting - blocks.settling - COALESCE(waited.keys, int8multirange()))
        + blocks.released * blocks.waiting AS keys
    FROM blocks
    LEFT JOIN waited ON waited.block = blocks.block
    UNION ALL
    SELECT
        'holds are released twice' AS fault,
        blocks.block,
        blocks.released * earlier.keys AS keys
    FROM blocks
    INNER JOIN ledger_eod.run_keys AS earlier ON earlier.block = blocks.block AND earlier.key_set = 'released'
    INNER JOIN ledger_eod.runs AS counting ON counting.run_id = earlier.run_id
    WHERE
-- include in_chain(
--     run: counting
--     genesis_run_id: CAST(:base_genesis_run_id AS bigint)
--     run_id: CAST(:base_run_id AS bigint)
-- )
    UNION ALL
    SELECT
        'a part of the new keys is in no piece, or in two' AS fault,
        first_key >> 13 AS block,
        int8multirange(int8range(LEAST(expected_key, first_key), GREATEST(expected_key, first_key))) AS keys
    FROM (
        SELECT
            first_key,
            lag(last_key, 1, CAST(:base_max_transaction_key AS bigint)) OVER (ORDER BY first_key) + 1 AS expected_key
        FROM (
            SELECT
                first_key,
                last_key
            FROM ledger_eod.run_pieces
            WHERE run_id = CAST(:run_id AS bigint) AND work IN ('new', 'prepared')
            UNION ALL
            SELECT
                CAST(:max_transaction_key AS bigint) + 1 AS first_key,
                NULL AS last_key
        ) AS pieces
    ) AS tiled
    WHERE expected_key <> first_key
    UNION ALL
    SELECT
        'a piece has other keys than rows' AS fault,
        pieces.first_key >> 13 AS block,
        int8multirange(int8range(pieces.first_key, pieces.last_key, '[]')) AS keys
    FROM ledger_eod.run_pieces AS pieces
    LEFT JOIN (
        SELECT
            piece,
            sum(upper(span) - lower(span)) FILTER (WHERE key_set = 'counted') AS counted_count,
            sum(upper(span) - lower(span)) FILTER (WHERE key_set = 'pending') AS pending_count
        FROM own
        WHERE key_set IN ('counted', 'pending')
        GROUP BY piece
    ) AS placed ON placed.piece = pieces.piece
    LEFT JOIN (
        SELECT
            piece,
            sum(transaction_count) AS transaction_count
        FROM ledger_eod.row_digests
        WHERE run_id = CAST(:run_id AS bigint)
        GROUP BY piece
    ) AS digested ON digested.piece = pieces.piece
    LEFT JOIN (
        SELECT
            older_pieces.piece,
            sum(upper(span) - lower(span)) AS pending_count
        FROM ledger_eod.run_pieces AS older_pieces
        INNER JOIN carried
            ON carried.block BETWEEN older_pieces.first_key >> 13 AND older_pieces.last_key >> 13
        LEFT JOIN blocks ON blocks.block = carried.block
        CROSS JOIN LATERAL unnest(carried.keys - COALESCE(blocks.counted, int8multirange())) AS span
        WHERE older_pieces.run_id = CAST(:run_id AS bigint)
            AND older_pieces.work = 'older'
            AND NOT CAST(:is_whole AS boolean)
        GROUP BY older_pieces.piece
    ) AS unsaid ON unsaid.piece = pieces.piece
    WHERE pieces.run_id = CAST(:run_id AS bigint)
        AND pieces.work <> 'holds'
        AND (
            pieces.counted_count + pieces.settled_count <> COALESCE(placed.counted_count, 0)
            OR pieces.counted_count + pieces.settled_count <> COALESCE(digested.transaction_count, 0)
            OR pieces.pending_count <> COALESCE(placed.pending_count, 0) + COALESCE(unsaid.pending_count, 0)
        )
)

SELECT
    fault,
    CAST(keys AS text) AS keys
FROM faults
WHERE NOT isempty(keys)
ORDER BY fault, block
LIMIT 1
