-- Divide the children whose holds a run may release into pieces of at most piece_size keys, but whole blocks: those
-- that it counted, and those that were waiting at its base. run_id: the run. base_run_id: its base, NULL without one.
-- Cost: these sets.
WITH sized AS (
    SELECT
        run_keys.block,
        div(sum(sum(upper(span) - lower(span))) OVER (ORDER BY run_keys.block) - 1, CAST(:piece_size AS bigint)) AS part
    FROM ledger_eod.run_keys
    CROSS JOIN LATERAL unnest(run_keys.keys) AS span
    WHERE (run_keys.run_id = CAST(:run_id AS bigint) AND run_keys.key_set = 'settling')
        OR (run_keys.run_id = CAST(:base_run_id AS bigint) AND run_keys.key_set = 'waiting')
    GROUP BY run_keys.block
)

INSERT INTO ledger_eod.run_pieces (run_id, piece, work, first_key, last_key)
SELECT
    CAST(:run_id AS bigint) AS run_id,
    row_number() OVER (ORDER BY part) + (
        SELECT COALESCE(max(planned.piece), 0) FROM ledger_eod.run_pieces AS planned
        WHERE planned.run_id = CAST(:run_id AS bigint)
    ) AS piece,
    'holds' AS work,
    min(block) << 13 AS first_key,
    (max(block) << 13) + 8191 AS last_key
FROM sized
GROUP BY part
