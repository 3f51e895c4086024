-- Stored balance rows as they are now, with names of their own beside captured ones.
-- condition: which rows. Cost: these rows.
SELECT
    balances.id AS live_key,
    balances.balance_id AS live_id,
    balances.currency AS live_currency,
    balances.ledger_id,
    balances.balance,
    balances.credit_balance,
    balances.debit_balance,
    balances.inflight_balance,
    balances.inflight_credit_balance,
    balances.inflight_debit_balance
FROM blnk.balances
WHERE {condition}
