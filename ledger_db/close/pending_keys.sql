-- The keys that are pending at a base, by block, gone rows included. Columns block and keys, which may be
-- empty. A close stores what it left pending and its base did not have, and now and then all of it:
-- pending are the keys that the closes since that one stored, without those that they counted.
-- base: the prefix of the base's parameters …_run_id, …_genesis_run_id, …_pending_from_run_id.
-- Cost: the sets of these closes, and in their blocks the keys that they counted, by index.
SELECT
    stored.block,
-- include uncounted_keys(
--     keys: stored.keys
--     block: stored.block
--     condition: counted.run_id > CAST(:{base}_pending_from_run_id AS bigint)
--     base: {base}
-- )
        AS keys
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
