-- What was recorded on one balance and is not in a cut: its four parts. Minor units. Always one row.
-- balance_id: the balance. cut: a pg_snapshot. cluster_id: this cluster.
-- Read-only. Cost: what was recorded since the cut, by index.
WITH
-- include postings.postings

SELECT
    COALESCE(sum(postings.credit), 0) AS credit,
    COALESCE(sum(postings.debit), 0) AS debit,
    COALESCE(sum(postings.inflight_credit), 0) AS inflight_credit,
    COALESCE(sum(postings.inflight_debit), 0) AS inflight_debit
FROM postings
WHERE postings.balance_id = CAST(:balance_id AS text)
    AND
-- include close.after_cut(key: postings.transaction_key; xid: postings.recorded_xid; cut: CAST(:cut AS pg_snapshot))
