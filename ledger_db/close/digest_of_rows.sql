-- The SHA-256 of the digests of a part's rows, in key order. A part is 1,024 keys.
-- Columns row_digest and transaction_key.
sha256(string_agg(row_digest, CAST('' AS bytea) ORDER BY transaction_key))
