-- The keys that the previous chain has in a set, up to its last close, one row for each block. key_set: the set.
-- Parameters previous_run_id, previous_genesis_run_id: that close.
SELECT
    spans.block,
    range_agg(spans.span) AS keys
FROM (
    SELECT
        run_keys.block,
        unnest(run_keys.keys) AS span
    FROM ledger_eod.run_keys
    INNER JOIN ledger_eod.runs AS closing ON closing.run_id = run_keys.run_id
    WHERE run_keys.key_set = '{key_set}'
        AND
-- include in_chain(
--     run: closing
--     genesis_run_id: CAST(:previous_genesis_run_id AS bigint)
--     run_id: CAST(:previous_run_id AS bigint)
-- )
) AS spans
GROUP BY spans.block
