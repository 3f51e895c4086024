-- Set one balance row to what its postings prove, all parts at once, provided that it still has the version that was
-- read. Increments the version.
-- balance_key, version: the row as it was read under its lock. credit_balance … inflight_debit_balance: minor units.
-- answer: the result of a reconstruction that was requested through the row's flag. It is stored and the flag removed.
-- NULL leaves meta_data unchanged. Returns the row as it is now, and the size of what the application's trigger sends
-- of it. No row: the version is another one. Locks the row.
UPDATE blnk.balances
SET
    credit_balance = CAST(:credit_balance AS numeric),
    debit_balance = CAST(:debit_balance AS numeric),
    balance = CAST(:credit_balance AS numeric) - CAST(:debit_balance AS numeric),
    inflight_credit_balance = CAST(:inflight_credit_balance AS numeric),
    inflight_debit_balance = CAST(:inflight_debit_balance AS numeric),
    inflight_balance = CAST(:inflight_credit_balance AS numeric) - CAST(:inflight_debit_balance AS numeric),
    meta_data = CASE
        WHEN CAST(:answer AS jsonb) IS NULL THEN meta_data
        ELSE (meta_data - 'BLNK_RUN_RECONCILIATION')
            || jsonb_build_object('BLNK_RECONCILIATION_RESULT', CAST(:answer AS jsonb))
    END,
    version = version + 1
WHERE id = CAST(:balance_key AS bigint) AND version = CAST(:version AS bigint)
RETURNING
    version,
    balance,
    credit_balance,
    debit_balance,
    inflight_balance,
    inflight_credit_balance,
    inflight_debit_balance,
    octet_length(CAST(json_build_object('table', 'balances', 'data', row_to_json(balances)) AS text))
        AS notification_bytes
