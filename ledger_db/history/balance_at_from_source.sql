-- One balance at one instant, summed from its first posting on. Minor units. Always one row. Read-only.
-- balance_id: the balance. instant: exclusive.
-- is_known_now, genesis_run_id, known_run_id, interim_run_id, pending_run_id, pending_from_run_id: what is known, as in
-- known_keys.
-- Cost: the balance's history, by index; unless is_known_now, each row is looked up in the sets of keys.
WITH
-- include postings.postings
,

-- include known_keys
,

known_postings AS (
    SELECT
        postings.credit,
        postings.debit,
        postings.inflight_credit,
        postings.inflight_debit,
        postings.held_at < CAST(:instant AS timestamptz) AND (
            NOT postings.is_release
            OR
-- include is_hold_known(key: postings.transaction_key)
        ) AS is_held
    FROM postings
    WHERE postings.balance_id = CAST(:balance_id AS text)
        AND postings.effective_at < CAST(:instant AS timestamptz)
        AND
-- include is_known(key: postings.transaction_key)
)

SELECT
    COALESCE(sum(credit), 0) AS credit_balance,
    COALESCE(sum(debit), 0) AS debit_balance,
    COALESCE(sum(inflight_credit) FILTER (WHERE is_held), 0) AS inflight_credit_balance,
    COALESCE(sum(inflight_debit) FILTER (WHERE is_held), 0) AS inflight_debit_balance
FROM known_postings
