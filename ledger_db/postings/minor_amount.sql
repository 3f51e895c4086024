-- what a transaction t is about, in minor units; a precision of zero is none, as in the reference
SELECT COALESCE(t.precise_amount, t.amount * COALESCE(NULLIF(t.precision, 0), 1)) AS amount
