-- The SHA-256 of the digests of parts, in key order, so that memory does not grow with the rows.
-- Columns digest and part.
encode(sha256(string_agg(digest, CAST('' AS bytea) ORDER BY part)), 'hex')
