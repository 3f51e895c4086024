-- Whether a row's parent_transaction names a transaction. The reference writes an empty text where
-- there is none, and the id of the batch, which is no transaction, into every row of a bulk. row: the row.
-- False, not NULL, without one: NULL would not spare what is asked beside it.
(
    {row}.parent_transaction IS NOT NULL
    AND {row}.parent_transaction <> ''
    AND {row}.parent_transaction NOT LIKE 'bulk\_%'
)
