-- What a transaction says, as a record: who paid whom, how much, when, and in what state.
-- Its binary form is the same for no two different rows: each field has its length, NULL has another
-- one than an empty text. Types are cast, so that a column of another type with the same values is the
-- same; text is in the session's encoding, which is UTF-8. The instants are the effective one and
-- created_at, so that writing the effective instant out changes nothing. Left out is what may change
-- later: metadata, description, hash chain and recorded_xid. row: the transaction.
row(
    CAST({row}.id AS bigint), CAST({row}.transaction_id AS text), CAST({row}.source AS text),
    CAST({row}.destination AS text), CAST({row}.reference AS text), trim_scale({row}.amount),
    trim_scale({row}.precise_amount), CAST({row}.precision AS bigint), CAST({row}.currency AS text),
    CAST({row}.status AS text), CAST({row}.parent_transaction AS text), CAST({row}.created_at AS timestamp),
    CAST(COALESCE({row}.effective_date, {row}.created_at) AS timestamp)
)
