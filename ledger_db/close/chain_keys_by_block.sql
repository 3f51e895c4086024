-- The keys that a chain has in a set, up to one of its closes, one row for each block. key_set: the set.
-- base: the prefix of the parameters …_run_id and …_genesis_run_id, which say which close.
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
--     genesis_run_id: CAST(:{base}_genesis_run_id AS bigint)
--     run_id: CAST(:{base}_run_id AS bigint)
-- )
) AS spans
GROUP BY spans.block
