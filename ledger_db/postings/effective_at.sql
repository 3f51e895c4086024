-- The instant from which a transaction's postings count.
-- The indexes on transactions contain exactly this expression. row: the transaction.
(COALESCE({row}.effective_date, {row}.created_at) AT TIME ZONE 'UTC')
