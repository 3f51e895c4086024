-- What is stored of the rows of a part: how many, sums, keys, the keys that settle a hold, and a digest.
-- Takes rows of dated.
count(*) AS transaction_count,
count(*) FILTER (WHERE counts) AS counting_count,
COALESCE(sum(small_posted), 0) + COALESCE(sum(posted) FILTER (WHERE NOT is_small), 0) AS posted_amount,
sum(own_hold) FILTER (WHERE own_hold IS NOT NULL) AS held_amount,
range_agg(int8range(transaction_key, transaction_key, '[]')) AS keys,
range_agg(int8range(transaction_key, transaction_key, '[]')) FILTER (WHERE is_release AND counts) AS settling,
-- include digest_of_rows
    AS digest
