-- When a transaction's postings count, as an instant; the indexes over transactions have exactly this expression.
-- row: the transaction.
(COALESCE({row}.effective_date, {row}.created_at) AT TIME ZONE 'UTC')
