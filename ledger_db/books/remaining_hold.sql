-- The rest of one hold: its INFLIGHT row minus the commits and voids that were recorded for it. Minor units.
-- hold_key: the INFLIGHT row's key. hold_id: its transaction_id. Always returns one row. Read-only.
-- Cost: the hold and its children, by index.
WITH
-- include postings.postings

SELECT COALESCE(sum(inflight_debit), 0) AS remaining
FROM postings
WHERE transaction_key = CAST(:hold_key AS bigint)
    OR transaction_key = ANY(
        ARRAY(
            SELECT child.id FROM blnk.transactions AS child
            WHERE child.parent_transaction = CAST(:hold_id AS text)
        )
    )
