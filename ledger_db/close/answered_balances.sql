-- The balances that a run answers for: key, text id and currency. Takes the parameter run_id.
SELECT
    captured.balance_key,
    captured.balance_id,
    captured.currency
FROM ledger_eod.captured_balances AS captured
WHERE captured.first_run_id <= CAST(:run_id AS bigint)
