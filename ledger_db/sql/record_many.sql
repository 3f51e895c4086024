-- Record transactions in the order of the arrays; one that repeats a recorded reference or id is left out.
-- Every parameter is an array with one element a transaction; precise_amounts in minor units, amounts in major units,
-- instants naive UTC, created_ats NULL: now. Returns the transaction_id of each that was recorded.
INSERT INTO blnk.transactions (
    transaction_id, source, destination, description, reference, amount, precise_amount, precision, currency, status,
    created_at, effective_date, scheduled_for, parent_transaction, meta_data
)
SELECT
    movement.transaction_id,
    movement.source,
    movement.destination,
    movement.description,
    movement.reference,
    movement.amount,
    movement.precise_amount,
    movement.precision,
    movement.currency,
    movement.status,
    COALESCE(movement.created_at, now() AT TIME ZONE 'UTC'),
    movement.effective_date,
    movement.scheduled_for,
    movement.parent_transaction,
    CAST(movement.meta_data AS jsonb)
FROM unnest(
    CAST(:transaction_ids AS text []),
    CAST(:sources AS text []),
    CAST(:destinations AS text []),
    CAST(:descriptions AS text []),
    CAST(:references AS text []),
    CAST(:amounts AS numeric []),
    CAST(:precise_amounts AS numeric []),
    CAST(:precisions AS bigint []),
    CAST(:currencies AS text []),
    CAST(:statuses AS text []),
    CAST(:created_ats AS timestamp []),
    CAST(:effective_dates AS timestamp []),
    CAST(:scheduled_fors AS timestamp []),
    CAST(:parent_transactions AS text []),
    CAST(:meta_datas AS text [])
) WITH ORDINALITY AS movement (
    transaction_id, source, destination, description, reference, amount, precise_amount, precision, currency, status,
    created_at, effective_date, scheduled_for, parent_transaction, meta_data, position
)
ORDER BY movement.position
ON CONFLICT DO NOTHING
RETURNING transaction_id
