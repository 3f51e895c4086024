-- The exchange rate of a transaction t. As in the reference ledger, no rate and a rate of zero mean 1.
-- 0 marks NaN and infinities.
SELECT
    CASE
        WHEN t.rate IN ('NaN', 'Infinity', '-Infinity') THEN 0
        ELSE CAST(COALESCE(NULLIF(t.rate, 0), 1) AS numeric)
    END AS rate
