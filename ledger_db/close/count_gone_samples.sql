-- How many of the transactions that the previous chain sampled as counted are nowhere in the ledger, under any key.
-- previous_run_id, previous_genesis_run_id: its last close. Read-only. Cost: two look-ups by id for each 1,024 keys.
SELECT count(*) AS gone_count
FROM ledger_eod.sampled_rows AS sampled
INNER JOIN ledger_eod.runs AS closing ON closing.run_id = sampled.run_id
WHERE sampled.key_set = 'counted'
    AND
-- include in_chain(
--     run: closing
--     genesis_run_id: CAST(:previous_genesis_run_id AS bigint)
--     run_id: CAST(:previous_run_id AS bigint)
-- )
    AND NOT EXISTS (
        SELECT FROM blnk.transactions AS t
        WHERE t.transaction_id = sampled.transaction_id
    )
