-- Record transactions in the order of the arrays; one that repeats a recorded reference or id is left out.
-- Every parameter is an array with one element a transaction; precise_amount in minor units, amount in major units,
-- instants naive UTC, created_at NULL: now. Returns the transaction_id of each that was recorded.
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
    CAST(:transaction_id AS text []),
    CAST(:source AS text []),
    CAST(:destination AS text []),
    CAST(:description AS text []),
    CAST(:reference AS text []),
    CAST(:amount AS numeric []),
    CAST(:precise_amount AS numeric []),
    CAST(:precision AS bigint []),
    CAST(:currency AS text []),
    CAST(:status AS text []),
    CAST(:created_at AS timestamp []),
    CAST(:effective_date AS timestamp []),
    CAST(:scheduled_for AS timestamp []),
    CAST(:parent_transaction AS text []),
    CAST(:meta_data AS text [])
) WITH ORDINALITY AS movement (
    transaction_id, source, destination, description, reference, amount, precise_amount, precision, currency, status,
    created_at, effective_date, scheduled_for, parent_transaction, meta_data, position
)
ORDER BY movement.position
ON CONFLICT DO NOTHING
RETURNING transaction_id
