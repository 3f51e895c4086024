-- The business date of an instant before the base's closes_at: of the close of the chain whose stored
-- interval holds it; before the chain's first close, by the run's zone and cut-off, a date before it.
-- instant: a timestamptz. Takes the parameters genesis_run_id, base_run_id, time_zone, cut_off.
-- Cost: one index probe.
COALESCE(
    (
        SELECT CASE WHEN closing.opens_at <= {instant} THEN closing.business_date END
        FROM ledger_eod.runs AS closing
        WHERE
-- include in_chain(
--     run: closing
--     genesis_run_id: CAST(:genesis_run_id AS bigint)
--     run_id: CAST(:base_run_id AS bigint)
-- )
            AND closing.closes_at > {instant}
        ORDER BY closing.closes_at
        LIMIT 1
    ),
    LEAST(
        ledger_eod.business_date_of(
            {instant}, CAST(:time_zone AS text), CAST(:cut_off AS time)
        ),
        (
            SELECT genesis.business_date - 1
            FROM ledger_eod.runs AS genesis
            WHERE genesis.run_id = CAST(:genesis_run_id AS bigint)
        )
    )
)
