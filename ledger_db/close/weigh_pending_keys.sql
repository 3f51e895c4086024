-- How many rows the pending keys of a base would take if they were stored whole, and how many are read to know them.
-- base_…: as for pending_keys. Returns pending_count and read_count. Read-only. Cost: these rows, by index.
WITH pending AS MATERIALIZED (
-- include pending_keys(base: base)
)

SELECT
    (
        SELECT count(*)
        FROM pending
        WHERE NOT isempty(pending.keys)
    ) AS pending_count,
    (
        SELECT count(*)
        FROM pending
        INNER JOIN ledger_eod.run_keys ON run_keys.block = pending.block AND run_keys.key_set IN ('pending', 'counted')
        INNER JOIN ledger_eod.runs AS storing ON storing.run_id = run_keys.run_id
        WHERE run_keys.run_id BETWEEN CAST(:base_pending_from_run_id AS bigint) AND CAST(:base_run_id AS bigint)
            AND (run_keys.key_set = 'pending' OR run_keys.run_id > CAST(:base_pending_from_run_id AS bigint))
            AND
-- include in_chain(
--     run: storing
--     genesis_run_id: CAST(:base_genesis_run_id AS bigint)
--     run_id: CAST(:base_run_id AS bigint)
-- )
    ) AS read_count
