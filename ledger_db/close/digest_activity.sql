-- The SHA-256 of a run's activity, for each 1,024 balance keys of a range, in key order. A line says all of a row, in a
-- text that no two rows share. run_id: the run. first_key, last_key: the range, of whole parts.
-- Returns digest. Read-only. Cost: the activity in the range.
WITH said AS (
    SELECT
        balance_key,
        CAST(row(
            balance_key, effective_date - date '2000-01-01', piece, is_late, posting_count, trim_scale(credit_balance),
            trim_scale(debit_balance), trim_scale(inflight_credit_balance), trim_scale(inflight_debit_balance),
            last_transaction_key
        ) AS text) AS line
    FROM ledger_eod.activity
    WHERE run_id = CAST(:run_id AS bigint)
        AND balance_key BETWEEN CAST(:first_key AS bigint) AND CAST(:last_key AS bigint)
)

SELECT sha256(convert_to(string_agg(line, '' ORDER BY line COLLATE "C"), 'UTF8')) AS digest
FROM said
GROUP BY balance_key >> 10
ORDER BY balance_key >> 10
