-- Whether the hold that a row releases is known. key: the key of the row that releases it.
(
    CAST(:is_known_now AS boolean)
    OR EXISTS (
        SELECT
        FROM blnk.transactions AS child
        INNER JOIN blnk.transactions AS parent ON parent.transaction_id = child.parent_transaction
        WHERE child.id = {key}
            AND
-- include is_known(key: parent.id)
    )
)
