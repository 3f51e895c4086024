-- Whether a row's parent_transaction names a transaction. The reference writes an empty text where
-- there is none, and the id of the batch, which is no transaction, into every row of a bulk. row: the row.
(
    {row}.parent_transaction <> ''
    AND {row}.parent_transaction NOT LIKE 'bulk\_%'
)
