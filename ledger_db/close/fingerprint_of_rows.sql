-- The fingerprint of some rows, in key order, and of how they are counted.
-- rows: have row_state and transaction_key. Takes the parameter rules: a digest of the statement that
-- counts.
encode(
    sha256(
        convert_to(CAST(:rules AS text), 'UTF8')
        || COALESCE(
            string_agg(int8send({rows}.row_state), '' ORDER BY {rows}.transaction_key), ''
        )
    ),
    'hex'
)
