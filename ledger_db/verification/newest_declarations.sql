-- The newest declared opening balance of each of some balances; earlier ones no longer count.
-- condition: which balances. cut: the rows in it were recorded before; NULL when it was declared in another
-- cluster, where it covers what came here with the ledger, which is in every cut. Cost: these declarations.
SELECT DISTINCT ON (balance_key)
    balance_key,
    credit_balance,
    debit_balance,
    inflight_credit_balance,
    inflight_debit_balance,
    CASE
        WHEN
            system_identifier
            = (SELECT CAST(control.system_identifier AS text) FROM pg_control_system() AS control)
            THEN cut
    END AS cut
FROM ledger_eod.opening_balances
WHERE {condition}
ORDER BY balance_key ASC, opening_balance_id DESC
