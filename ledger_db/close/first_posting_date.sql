-- The earliest effective instant of the transactions that count; NULL without one. What is before the common era or
-- infinite is left out. Read-only. Cost: one pass over the transactions.
SELECT min(effective.effective_at) AS first_at
FROM blnk.transactions AS t
CROSS JOIN
    LATERAL (
        SELECT
-- include postings.effective_at(row: t)
                AS effective_at
    ) AS effective
WHERE
-- include postings.counts(status: t.status)
    AND isfinite(effective.effective_at)
    AND effective.effective_at >= timestamptz '0001-01-03 00:00:00+00'
