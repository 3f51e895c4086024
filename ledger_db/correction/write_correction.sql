-- Bring one balance row to what its postings say, all parts together, fenced by its version, which it bumps.
-- balance_key, version: the row as it was read under its lock. credit_balance … inflight_debit_balance: minor units.
-- answer: the result to store for a requested reconstruction, whose flag goes; NULL leaves meta_data as it is.
-- Returns the row as it is now, and what the application's trigger sends of it; no row: the version has moved on.
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
    octet_length(json_build_object('table', 'balances', 'data', row_to_json(balances))::text)
        AS notification_bytes
