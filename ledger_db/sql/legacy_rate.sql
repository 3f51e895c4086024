SELECT COALESCE(NULLIF(t.rate, 0), 1)::numeric AS rate
