-- The pieces that are done of the preparations of a close: what is counted in them has the same dates and
-- the same base in the close. Takes the parameter run_id: the close.
SELECT counted.*
FROM ledger_eod.runs AS closing
CROSS JOIN ledger_eod.runs AS preparing
INNER JOIN ledger_eod.run_pieces AS counted ON counted.run_id = preparing.run_id
WHERE closing.run_id = CAST(:run_id AS bigint)
    AND preparing.kind = 'preparation'
    AND preparing.status = 'open'
    AND preparing.planned_at IS NOT NULL
    AND preparing.base_run_id = closing.base_run_id
    AND preparing.genesis_run_id = closing.genesis_run_id
    AND preparing.cluster_id = closing.cluster_id
    AND preparing.business_date = closing.business_date
    AND preparing.time_zone = closing.time_zone
    AND preparing.cut_off = closing.cut_off
    AND preparing.opens_at = closing.opens_at
    AND preparing.closes_at = closing.closes_at
    AND counted.work = 'new'
    AND counted.done_at IS NOT NULL
