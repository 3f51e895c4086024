-- The keys that one run has in a set, one row for each block. run_id: the run. key_set: the set.
SELECT
    spans.block,
    range_agg(spans.span) AS keys
FROM (
    SELECT
        run_keys.block,
        unnest(run_keys.keys) AS span
    FROM ledger_eod.run_keys
    WHERE run_keys.run_id = {run_id} AND run_keys.key_set = '{key_set}'
) AS spans
GROUP BY spans.block
