-- One transaction, with the columns that a settlement or a refund of it needs. Returns no row when there is none.
-- transaction_id: its id. amount_minor: in minor units, unsigned. Read-only. Cost: one index look-up.
SELECT
    t.id AS key,
    t.source,
    t.destination,
    t.currency,
    t.status,
    t.description,
    minor.amount AS amount_minor,
    CAST(COALESCE(NULLIF(t.precision, 0), 1) AS bigint) AS precision
FROM blnk.transactions AS t
CROSS JOIN
    LATERAL (
-- include postings.minor_amount
    ) AS minor
WHERE t.transaction_id = CAST(:transaction_id AS text)
