-- Whether the rows that a chain looked at are still the rows of their keys: those pending at its newest close, and at
-- most 1,000 of those that it counted last. base_…: the newest close, as for pending_keys.
-- Returns counted_count and how many of them are gone as missing_count; replaced_count of all, and of the first that is
-- replaced replaced_key, was_id and is_id; moved_count: of those gone, how many have another key now. Read-only.
-- Cost: two look-ups for each 1,024 keys that are pending, and 1,000 more, by primary key; of those gone, by id too.
WITH counted AS MATERIALIZED (
    SELECT
        sampled.transaction_key,
        sampled.transaction_id,
        TRUE AS is_counted
    FROM ledger_eod.sampled_rows AS sampled
    INNER JOIN ledger_eod.runs AS closing ON closing.run_id = sampled.run_id
    WHERE sampled.key_set = 'counted'
        AND
-- include in_chain(
--     run: closing
--     genesis_run_id: CAST(:base_genesis_run_id AS bigint)
--     run_id: CAST(:base_run_id AS bigint)
-- )
    ORDER BY sampled.run_id DESC, sampled.transaction_key DESC
    LIMIT 1000
),

compared AS MATERIALIZED (
    SELECT
        sampled.transaction_key,
        sampled.is_counted,
        sampled.transaction_id AS was_id,
        (
            SELECT t.transaction_id
            FROM blnk.transactions AS t
            WHERE t.id = sampled.transaction_key
        ) AS is_id
    FROM (
        SELECT
            transaction_key,
            transaction_id,
            is_counted
        FROM counted
        UNION ALL
        SELECT
            sampled_rows.transaction_key,
            sampled_rows.transaction_id,
            FALSE AS is_counted
        FROM ledger_eod.sampled_rows
        INNER JOIN ledger_eod.runs AS storing ON storing.run_id = sampled_rows.run_id
        WHERE sampled_rows.key_set = 'pending'
            AND sampled_rows.run_id BETWEEN CAST(:base_pending_from_run_id AS bigint) AND CAST(:base_run_id AS bigint)
            AND NOT  -- counted since it was sampled
-- include is_counted(key: sampled_rows.transaction_key; base: base)
            AND NOT EXISTS (  -- gone since then: another row may have its key now
                SELECT
                FROM ledger_eod.run_exceptions AS itemised
                WHERE itemised.run_id = CAST(:base_run_id AS bigint)
                    AND itemised.transaction_key = sampled_rows.transaction_key
                    AND itemised.cause = 'gone'
            )
            AND
-- include in_chain(
--     run: storing
--     genesis_run_id: CAST(:base_genesis_run_id AS bigint)
--     run_id: CAST(:base_run_id AS bigint)
-- )
    ) AS sampled
)

SELECT
    count(*) FILTER (WHERE is_counted) AS counted_count,
    count(*) FILTER (WHERE is_counted AND is_id IS NULL) AS missing_count,
    count(*) FILTER (
        WHERE is_id IS NULL
        AND EXISTS (
            SELECT FROM blnk.transactions AS t
            WHERE t.transaction_id = compared.was_id
        )
    ) AS moved_count,
    count(*) FILTER (WHERE is_id <> was_id) AS replaced_count,
    min(transaction_key) FILTER (WHERE is_id <> was_id) AS replaced_key,
    (array_agg(was_id ORDER BY transaction_key) FILTER (WHERE is_id <> was_id))[1] AS was_id,
    (array_agg(is_id ORDER BY transaction_key) FILTER (WHERE is_id <> was_id))[1] AS is_id
FROM compared
