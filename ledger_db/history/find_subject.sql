-- The balance that a question is about, and the corrections that ended a drift of its stored row at an instant. Key and
-- currency are as closes captured them, also when the row is gone or was changed since.
-- balance_id: the balance. instant: what the question is about.
-- Returns balance_key, balance_id, currency, correction_ids in order; no row: there is no such balance. Read-only.
WITH
subject AS (
    SELECT
        asked.balance_id,
        COALESCE(captured.balance_key, balances.id) AS balance_key,
        COALESCE(captured.currency, balances.currency) AS currency
    FROM (SELECT CAST(:balance_id AS text) AS balance_id) AS asked
    LEFT JOIN ledger_eod.captured_balances AS captured ON captured.balance_id = asked.balance_id
    LEFT JOIN blnk.balances ON balances.balance_id = asked.balance_id
)

SELECT
    balance_key,
    balance_id,
    currency,
    ARRAY(
        SELECT corrections.correction_id
        FROM ledger_eod.corrections
        WHERE corrections.balance_key = subject.balance_key
            AND corrections.corrected_at > CAST(:instant AS timestamptz)
            AND COALESCE(corrections.drifted_since, '-infinity') <= CAST(:instant AS timestamptz)
        ORDER BY corrections.correction_id
    ) AS correction_ids
FROM subject
WHERE balance_key IS NOT NULL
