-- Of keys of one block, those that a base's chain has not counted, up to the base.
-- keys: the keys. block: their block. condition: holds for the rows of counted, sets of keys.
-- base: the prefix of the base's parameters …_run_id and …_genesis_run_id. Cost: one index range.
{keys} - COALESCE(
    (
        SELECT range_agg(spans.span)
        FROM ledger_eod.run_keys AS counted
        INNER JOIN ledger_eod.runs AS counting ON counting.run_id = counted.run_id
        CROSS JOIN LATERAL unnest(counted.keys) AS spans (span)
        WHERE counted.block = {block}
            AND counted.key_set = 'counted'
            AND {condition}
            AND
-- include in_chain(
--     run: counting
--     genesis_run_id: CAST(:{base}_genesis_run_id AS bigint)
--     run_id: CAST(:{base}_run_id AS bigint)
-- )
    ),
    int8multirange()
)
