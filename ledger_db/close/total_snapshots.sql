-- What one run's snapshots add up to, for each currency. Minor units.
-- run_id, business_date, kind: the run. Read-only. Cost: one pass over its snapshots.
SELECT
    captured.currency,
    count(*) AS balance_count,
    sum(snapshots.credit_balance) AS credit_balance,
    sum(snapshots.debit_balance) AS debit_balance,
    sum(snapshots.inflight_credit_balance) AS inflight_credit_balance,
    sum(snapshots.inflight_debit_balance) AS inflight_debit_balance
FROM ledger_eod.balance_snapshots AS snapshots
INNER JOIN ledger_eod.captured_balances AS captured ON captured.balance_key = snapshots.balance_key
WHERE snapshots.business_date = CAST(:business_date AS date)
    AND snapshots.kind = CAST(:kind AS ledger_eod.run_kind)
    AND snapshots.run_id = CAST(:run_id AS bigint)
GROUP BY captured.currency
ORDER BY captured.currency
