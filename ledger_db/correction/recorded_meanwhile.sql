-- What was recorded on one balance and is not in a cut: its four parts. Minor units. Always one row.
-- balance_id: the balance. cut: a pg_snapshot. Read-only. Cost: what was recorded since the cut, by index.
WITH
-- include postings.postings

SELECT
    COALESCE(sum(credit), 0) AS credit,
    COALESCE(sum(debit), 0) AS debit,
    COALESCE(sum(inflight_credit), 0) AS inflight_credit,
    COALESCE(sum(inflight_debit), 0) AS inflight_debit
FROM postings
WHERE balance_id = CAST(:balance_id AS text)
    AND
-- include close.after_cut(xid: recorded_xid; cut: CAST(:cut AS pg_snapshot))
