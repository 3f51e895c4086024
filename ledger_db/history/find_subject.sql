-- The balance that a question is about, and the corrections that ended a drift of its stored row at an instant.
-- balance_id: the balance. instant: what the question is about.
-- Returns balance_key, balance_id, currency, correction_ids in order; no row: there is no such balance. Read-only.
SELECT
    balances.id AS balance_key,
    balances.balance_id,
    balances.currency,
    ARRAY(
        SELECT corrections.correction_id
        FROM ledger_eod.corrections
        WHERE corrections.balance_key = balances.id
            AND corrections.corrected_at > CAST(:instant AS timestamptz)
            AND COALESCE(corrections.drifted_since, '-infinity') <= CAST(:instant AS timestamptz)
        ORDER BY corrections.correction_id
    ) AS correction_ids
FROM blnk.balances
WHERE balances.balance_id = CAST(:balance_id AS text)
