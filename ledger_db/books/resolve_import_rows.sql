-- Look up what the rows of an import name. Balances: by id, or for @Name by indicator and currency. Parents: by
-- reference, in the ledger or on an earlier line. What is not found stays NULL. Writes import_rows only.
-- Cost: the file, with index look-ups for each row.
WITH internal AS (
    SELECT
        indicator,
        currency,
        balance_id
    FROM blnk.balances
    WHERE indicator IS NOT NULL
),

found AS (
    SELECT
        staged.line_number,
        COALESCE(source.balance_id, internal_source.balance_id) AS source_id,
        COALESCE(destination.balance_id, internal_destination.balance_id) AS destination_id,
        COALESCE(recorded.transaction_id, earlier.transaction_id) AS parent_id
    FROM import_rows AS staged
    LEFT JOIN blnk.balances AS source ON source.balance_id = staged.source
    LEFT JOIN blnk.balances AS destination ON destination.balance_id = staged.destination
    LEFT JOIN internal AS internal_source
        ON internal_source.indicator = staged.source AND internal_source.currency = staged.currency
    LEFT JOIN internal AS internal_destination
        ON internal_destination.indicator = staged.destination AND internal_destination.currency = staged.currency
    LEFT JOIN blnk.transactions AS recorded ON recorded.reference = staged.parent_reference
    LEFT JOIN LATERAL (  -- any one of the lines that repeat a reference; the repetition itself is refused
        SELECT above.transaction_id
        FROM import_rows AS above
        WHERE above.reference = staged.parent_reference AND above.line_number < staged.line_number
        ORDER BY above.line_number
        LIMIT 1
    ) AS earlier ON staged.parent_reference IS NOT NULL
)

UPDATE import_rows AS staged
SET source_id = found.source_id, destination_id = found.destination_id, parent_id = found.parent_id
FROM found
WHERE found.line_number = staged.line_number
