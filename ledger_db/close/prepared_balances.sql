-- The balances that a preparation takes into account: those captured by runs before it, and those that it
-- found besides. Takes the parameter run_id.
SELECT
    captured.balance_key,
    captured.balance_id,
    captured.currency
FROM ledger_eod.captured_balances AS captured
WHERE captured.first_run_id <= CAST(:run_id AS bigint)
UNION ALL
SELECT
    found.balance_key,
    found.balance_id,
    found.currency
FROM ledger_eod.prepared_balances AS found
WHERE found.run_id = CAST(:run_id AS bigint)
