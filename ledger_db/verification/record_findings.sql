-- Open a discrepancy for each finding, or update the one that is already open with the same difference.
-- findings: a JSON array of objects with the columns of discrepancies, amounts as strings in minor units.
-- verification_id, scope: the verification. Returns opened_count.
-- Two verifications at the same time open each discrepancy once. Locks the discrepancies that it updates.
WITH findings AS (
    SELECT finding.*
    FROM
        jsonb_to_recordset(CAST(:findings AS jsonb)) AS finding (
            cause text, action text, balance_key bigint, transaction_key bigint, business_date date,
            stored_balance numeric, stored_credit_balance numeric, stored_debit_balance numeric,
            stored_inflight_balance numeric, stored_inflight_credit_balance numeric,
            stored_inflight_debit_balance numeric, proven_credit_balance numeric, proven_debit_balance numeric,
            proven_inflight_credit_balance numeric, proven_inflight_debit_balance numeric, difference text,
            gross_difference numeric, evidence jsonb
        )
),

recorded AS (
    INSERT INTO ledger_eod.discrepancies AS known (
        cause, action, found_by, balance_key, transaction_key, business_date, stored_balance, stored_credit_balance,
        stored_debit_balance, stored_inflight_balance, stored_inflight_credit_balance, stored_inflight_debit_balance,
        proven_credit_balance, proven_debit_balance, proven_inflight_credit_balance, proven_inflight_debit_balance,
        difference, gross_difference, evidence, first_seen_at, first_verification_id, last_seen_at, last_verification_id
    )
    SELECT
        cause,
        action,
        CAST(:scope AS ledger_eod.verification_scope) AS found_by,
        balance_key,
        transaction_key,
        business_date,
        stored_balance,
        stored_credit_balance,
        stored_debit_balance,
        stored_inflight_balance,
        stored_inflight_credit_balance,
        stored_inflight_debit_balance,
        proven_credit_balance,
        proven_debit_balance,
        proven_inflight_credit_balance,
        proven_inflight_debit_balance,
        difference,
        gross_difference,
        evidence,
        now() AS first_seen_at,
        CAST(:verification_id AS bigint) AS first_verification_id,
        now() AS last_seen_at,
        CAST(:verification_id AS bigint) AS last_verification_id
    FROM findings
    ORDER BY cause, balance_key, transaction_key, business_date
    ON CONFLICT (
        cause, COALESCE(balance_key, CAST(0 AS bigint)), COALESCE(transaction_key, CAST(0 AS bigint)),
        COALESCE(business_date, CAST('-infinity' AS date)), difference
    ) WHERE closed_at IS NULL
    DO UPDATE
        SET
            last_seen_at = GREATEST(known.last_seen_at, excluded.last_seen_at),
            last_verification_id = GREATEST(known.last_verification_id, excluded.last_verification_id)
    RETURNING known.first_verification_id = CAST(:verification_id AS bigint) AS is_new
)

SELECT count(*) FILTER (WHERE is_new) AS opened_count
FROM recorded
