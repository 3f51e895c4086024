-- What was recorded on one balance and is not in a cut. balance_id: the balance. cut: a pg_snapshot. Minor units.
-- Read-only. Cost: what was recorded since the cut, by index.
WITH
-- include postings

SELECT
    COALESCE(sum(credit), 0) AS credit,
    COALESCE(sum(debit), 0) AS debit,
    COALESCE(sum(inflight_credit), 0) AS inflight_credit,
    COALESCE(sum(inflight_debit), 0) AS inflight_debit
FROM postings
WHERE balance_id = CAST(:balance_id AS text)
    AND recorded_xid >= pg_snapshot_xmin(CAST(:cut AS pg_snapshot))
    AND NOT pg_visible_in_snapshot(recorded_xid, CAST(:cut AS pg_snapshot))
