-- Whether a row settles a parent that is not there, so that nobody can tell whether it releases a hold.
-- row: a row of ruled_transactions. The subquery is scalar, so that it stays one index look-up for each
-- child; as NOT EXISTS it may become a hash of the whole ledger.
(
    {row}.settles
    AND {row}.hold_effective_at IS NULL
    AND
-- include postings.names_parent(row: {row})
    AND (
        SELECT parent.id
        FROM blnk.transactions AS parent
        WHERE parent.transaction_id = {row}.parent_transaction
    ) IS NULL
)
