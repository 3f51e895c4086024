-- What is known at a run, by keys: what each known run counted and released, and what counts besides as it is pending.
-- Takes these parameters. genesis_run_id, known_run_id: a chain and the last close of it that is known. interim_run_id:
-- an interim run that is known too, or NULL. pending_run_id: the run whose pending keys count, or NULL.
-- pending_from_run_id: the run whose set of pending keys is whole.
-- None is MATERIALIZED: a key is one look-up by its block.
known_runs AS NOT MATERIALIZED (
    SELECT runs.run_id
    FROM ledger_eod.runs
    WHERE runs.run_id = CAST(:interim_run_id AS bigint)
        OR
-- include close.in_chain(
--     run: runs
--     genesis_run_id: CAST(:genesis_run_id AS bigint)
--     run_id: CAST(:known_run_id AS bigint)
-- )
),

counted_keys AS NOT MATERIALIZED (
    SELECT
        run_keys.block,
        run_keys.keys AS spans,
        run_keys.effective_date
    FROM ledger_eod.run_keys
    INNER JOIN known_runs ON known_runs.run_id = run_keys.run_id
    WHERE run_keys.key_set = 'counted'
),

released_keys AS NOT MATERIALIZED (
    SELECT
        run_keys.block,
        run_keys.keys AS spans,
        run_keys.effective_date
    FROM ledger_eod.run_keys
    INNER JOIN known_runs ON known_runs.run_id = run_keys.run_id
    WHERE run_keys.key_set = 'released'
),

-- What was pending at a run up to that one, since all of it was stored. What was counted then is in counted_keys too.
pending_keys AS NOT MATERIALIZED (
    SELECT
        run_keys.block,
        run_keys.keys AS spans
    FROM ledger_eod.run_keys
    INNER JOIN known_runs ON known_runs.run_id = run_keys.run_id
    WHERE run_keys.key_set = 'pending'
        AND run_keys.run_id BETWEEN CAST(:pending_from_run_id AS bigint) AND CAST(:pending_run_id AS bigint)
),

known_keys AS NOT MATERIALIZED (
    SELECT
        counted_keys.block,
        counted_keys.spans
    FROM counted_keys
    UNION ALL
    SELECT
        pending_keys.block,
        pending_keys.spans
    FROM pending_keys
)
