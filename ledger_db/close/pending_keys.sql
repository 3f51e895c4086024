-- The keys that are pending at a base, by block, gone rows included. Columns block and keys, which may be
-- empty. A close stores what it left pending and its base did not have, and now and then all of it:
-- pending are the keys that the closes since that one stored, without those that they counted.
-- base: the prefix of the base's parameters …_run_id, …_genesis_run_id, …_pending_from_run_id.
-- Cost: the sets of these closes, and in their blocks the keys that they counted, by index.
SELECT
    stored.block,
    stored.keys - COALESCE(
        (
            SELECT range_agg(counted.span)
            FROM (
                SELECT unnest(counted.keys) AS span
                FROM ledger_eod.run_keys AS counted
                INNER JOIN ledger_eod.runs AS counting ON counting.run_id = counted.run_id
                WHERE counted.block = stored.block
                    AND counted.key_set = 'counted'
                    AND counted.run_id > CAST(:{base}_pending_from_run_id AS bigint)
                    AND counted.run_id <= CAST(:{base}_run_id AS bigint)
                    AND
-- include in_chain(
--     run: counting
--     genesis_run_id: CAST(:{base}_genesis_run_id AS bigint)
--     run_id: CAST(:{base}_run_id AS bigint)
-- )
            ) AS counted
        ),
        int8multirange()
    ) AS keys
FROM (
    SELECT
        spans.block,
        range_agg(spans.span) AS keys
    FROM (
        SELECT
            pending.block,
            unnest(pending.keys) AS span
        FROM ledger_eod.run_keys AS pending
        INNER JOIN ledger_eod.runs AS storing ON storing.run_id = pending.run_id
        WHERE pending.key_set = 'pending'
            AND pending.run_id >= CAST(:{base}_pending_from_run_id AS bigint)
            AND pending.run_id <= CAST(:{base}_run_id AS bigint)
            AND
-- include in_chain(
--     run: storing
--     genesis_run_id: CAST(:{base}_genesis_run_id AS bigint)
--     run_id: CAST(:{base}_run_id AS bigint)
-- )
    ) AS spans
    GROUP BY spans.block
) AS stored
