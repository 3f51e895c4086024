-- as in the reference, no rate and a rate of zero mean one; 0 marks NaN and infinities
SELECT CASE WHEN t.rate IN ('NaN', 'Infinity', '-Infinity') THEN 0 ELSE COALESCE(NULLIF(t.rate, 0), 1)::numeric END AS rate
