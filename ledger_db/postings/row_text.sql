-- What a transaction says: who paid whom, how much, when, and in what state. Digests are made of it.
-- It is a text that no two different rows share, and no two different sequences of rows: in the text of
-- a record, NULL differs from empty, and every delimiter inside a value is quoted. The instants are the
-- effective one and created_at, so that writing the effective instant out changes nothing. Left out is
-- what may change later: metadata, description, hash chain and recorded_xid. row: the transaction.
CAST(row(
    {row}.id, {row}.transaction_id, {row}.source, {row}.destination, {row}.reference, trim_scale({row}.amount),
    trim_scale({row}.precise_amount), {row}.precision, {row}.currency, {row}.status, {row}.parent_transaction,
    EXTRACT(EPOCH FROM {row}.created_at), EXTRACT(EPOCH FROM COALESCE({row}.effective_date, {row}.created_at))
) AS text)
