-- The exchange rate of a transaction in a ledger without rates: always 1.
SELECT CAST(1 AS numeric) AS rate
