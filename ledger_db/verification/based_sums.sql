-- What the raw postings in a close's cut add up to, for some balances. Minor units. Returns nothing for a balance
-- without postings in it. balance_ids: the balances. base_closes_at, base_cut: the close.
-- Read-only. Cost: these balances' histories, by index.
WITH
-- include postings.postings

SELECT
    balance_id,
    sum(credit) AS credit_balance,
    sum(debit) AS debit_balance,
    sum(inflight_credit) AS inflight_credit_balance,
    sum(inflight_debit) AS inflight_debit_balance
FROM postings
WHERE balance_id = ANY(CAST(:balance_ids AS text[]))
    AND effective_at < CAST(:base_closes_at AS timestamptz)
    AND
-- include close.in_cut(xid: recorded_xid; cut: CAST(:base_cut AS pg_snapshot))
GROUP BY balance_id
ORDER BY balance_id
