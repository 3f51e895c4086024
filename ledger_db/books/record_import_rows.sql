-- Record an import's rows in the order of their lines. Amounts are exact. Instants are UTC without time zone; an empty
-- created_at means now. A row whose reference or id is recorded already is left out. Cost: the file.
INSERT INTO blnk.transactions (
    transaction_id, source, destination, description, reference, amount, precise_amount, precision, currency, status,
    created_at, effective_date, parent_transaction
)
SELECT
    transaction_id,
    source_id,
    destination_id,
    description,
    reference,
    amount,
    precise_amount,
    precision,
    currency,
    status,
    COALESCE(created_at, now() AT TIME ZONE 'UTC') AS created_at,
    effective_date,
    parent_id
FROM import_rows
ORDER BY line_number
ON CONFLICT DO NOTHING
