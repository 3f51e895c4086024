SELECT 1::numeric AS rate
