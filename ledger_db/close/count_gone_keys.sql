-- How many keys that the previous chain counted have no row any more.
-- previous_run_id, previous_genesis_run_id: its last close. Read-only. Cost: its keys, by the primary key alone.
SELECT
    COALESCE(sum(upper(spans.span) - lower(spans.span) - (
        SELECT count(*) FROM blnk.transactions AS t
        WHERE t.id >= lower(spans.span) AND t.id < upper(spans.span)
    )), 0) AS gone_count
FROM (
-- include chain_keys_by_block(key_set: counted; base: previous)
) AS counted
CROSS JOIN LATERAL unnest(counted.keys) AS spans (span)
