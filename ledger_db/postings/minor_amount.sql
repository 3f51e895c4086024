-- The amount of a transaction t in minor units, unsigned.
-- As in the reference ledger, a precision of zero means that the amount is in minor units.
SELECT COALESCE(t.precise_amount, t.amount * COALESCE(NULLIF(t.precision, 0), 1)) AS amount
