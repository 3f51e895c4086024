-- The SHA-256 of what a part's rows say, in key order. A part is 1,024 keys.
-- Columns row_text and transaction_key.
sha256(convert_to(string_agg(row_text, '' ORDER BY transaction_key), 'UTF8'))
