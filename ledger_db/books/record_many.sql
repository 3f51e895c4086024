-- Record transactions in the order of the arrays. One whose reference or id is recorded already is left out.
-- Every parameter is an array with one element for each transaction. precise_amount: minor units. amount: major units.
-- Instants: UTC without time zone; created_at NULL means now. Returns the transaction_id of each recorded transaction.
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
    COALESCE(movement.created_at, now() AT TIME ZONE 'UTC') AS created_at,
    movement.effective_date,
    movement.scheduled_for,
    movement.parent_transaction,
    CAST(movement.meta_data AS jsonb) AS meta_data
FROM
    unnest(
        CAST(:transaction_id AS text[]),
        CAST(:source AS text[]),
        CAST(:destination AS text[]),
        CAST(:description AS text[]),
        CAST(:reference AS text[]),
        CAST(:amount AS numeric[]),
        CAST(:precise_amount AS numeric[]),
        CAST(:precision AS bigint[]),
        CAST(:currency AS text[]),
        CAST(:status AS text[]),
        CAST(:created_at AS timestamp[]),
        CAST(:effective_date AS timestamp[]),
        CAST(:scheduled_for AS timestamp[]),
        CAST(:parent_transaction AS text[]),
        CAST(:meta_data AS text[])
    ) WITH ORDINALITY AS movement (
        transaction_id, source, destination, description, reference, amount, precise_amount, precision, currency,
        status, created_at, effective_date, scheduled_for, parent_transaction, meta_data, position
    )
ORDER BY movement.position
ON CONFLICT DO NOTHING
RETURNING transaction_id
