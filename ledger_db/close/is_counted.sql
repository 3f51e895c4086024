-- Whether a close of the base's chain, up to the base, has counted a key. False without a base.
-- key: the key. base: the prefix of the base's parameters …_run_id and …_genesis_run_id.
-- Cost: one index probe.
EXISTS (
    SELECT
    FROM ledger_eod.run_keys AS counted
    INNER JOIN ledger_eod.runs AS counting ON counting.run_id = counted.run_id
    WHERE counted.block = {key} >> 13
        AND counted.key_set = 'counted'
        AND counted.keys @> CAST({key} AS bigint)
        AND
-- include in_chain(
--     run: counting
--     genesis_run_id: CAST(:{base}_genesis_run_id AS bigint)
--     run_id: CAST(:{base}_run_id AS bigint)
-- )
)
