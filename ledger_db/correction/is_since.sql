-- Whether the base's chain has not counted a row; true without a base.
-- side: the row, joined with older by its block. Takes the parameter base_max_transaction_key.
(
    {side}.transaction_key > CAST(:base_max_transaction_key AS bigint)
    OR COALESCE(older.keys @> CAST({side}.transaction_key AS bigint), FALSE)
)
