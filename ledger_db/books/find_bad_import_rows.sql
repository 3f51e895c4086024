-- Rows of an import that the ledger or the file itself rules out: one problem for each row, the first that applies.
-- Reads import_rows, whose balance and parent columns are resolved already. Returns line and problem, in line order.
-- Cost: the file, with one index look-up for each reference.
WITH repeated AS (
    SELECT
        line_number,
        min(line_number) OVER (PARTITION BY reference) AS first_line
    FROM import_rows
)

SELECT
    staged.line_number AS line,
    CASE
        WHEN repeated.first_line < staged.line_number
            THEN format('reference %s is on line %s already', staged.reference, repeated.first_line)
        WHEN known.transaction_id IS NOT NULL
            THEN format('reference %s is in the ledger already, as %s', staged.reference, known.transaction_id)
        WHEN staged.source_id IS NULL
            THEN format('there is no source %s in %s', staged.source, staged.currency)
        WHEN staged.destination_id IS NULL
            THEN format('there is no destination %s in %s', staged.destination, staged.currency)
        WHEN source.currency <> staged.currency
            THEN format('source %s is kept in %s, not in %s', staged.source, source.currency, staged.currency)
        WHEN destination.currency <> staged.currency
            THEN format(
                    'destination %s is kept in %s, not in %s', staged.destination, destination.currency, staged.currency
                )
        ELSE format('there is no parent %s before it, in the file or the ledger', staged.parent_reference)
    END AS problem
FROM import_rows AS staged
INNER JOIN repeated ON repeated.line_number = staged.line_number
LEFT JOIN blnk.transactions AS known ON known.reference = staged.reference
LEFT JOIN blnk.balances AS source ON source.balance_id = staged.source_id
LEFT JOIN blnk.balances AS destination ON destination.balance_id = staged.destination_id
WHERE repeated.first_line < staged.line_number
    OR known.transaction_id IS NOT NULL
    OR staged.source_id IS NULL
    OR staged.destination_id IS NULL
    OR source.currency <> staged.currency
    OR destination.currency <> staged.currency
    OR (staged.parent_reference IS NOT NULL AND staged.parent_id IS NULL)
ORDER BY staged.line_number
