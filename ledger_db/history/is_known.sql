-- Whether a row is known: its key is in known_keys. key: its key.
-- Parameters: is_known_now: every row is; known_max_transaction_key: none above it is.
(
    CAST(:is_known_now AS boolean)
    OR (
        {key} <= CAST(:known_max_transaction_key AS bigint)
        AND EXISTS (
            SELECT
            FROM known_keys
            WHERE known_keys.block = {key} >> 13
                AND known_keys.spans @> CAST({key} AS bigint)
        )
    )
)
