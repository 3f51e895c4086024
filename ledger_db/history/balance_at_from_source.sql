-- One balance at one instant, summed from its first posting on. Minor units. Always one row. Read-only.
-- balance_id: the balance. instant: exclusive. known_cut: the knowledge time; NULL for all that is committed now.
-- Cost: the balance's history, by index.
WITH
-- include postings.postings

SELECT
    COALESCE(sum(credit), 0) AS credit_balance,
    COALESCE(sum(debit), 0) AS debit_balance,
    COALESCE(sum(inflight_credit), 0) AS inflight_credit_balance,
    COALESCE(sum(inflight_debit), 0) AS inflight_debit_balance
FROM postings
WHERE balance_id = CAST(:balance_id AS text)
    AND effective_at < CAST(:instant AS timestamptz)
    AND (
        CAST(:known_cut AS pg_snapshot) IS NULL
        OR
-- include close.in_cut(xid: recorded_xid; cut: CAST(:known_cut AS pg_snapshot))
    )
