-- Rows of a recorded import that settle a hold between other balances. Returns line and problem, in line order.
-- Reads import_rows after they were recorded. Cost: the file, with one index look-up for each parent.
SELECT
    staged.line_number AS line,
    format(
        'hold %s moves %s from %s to %s', staged.parent_reference, hold.currency, hold.source, hold.destination
    ) AS problem
FROM import_rows AS staged
INNER JOIN blnk.transactions AS hold ON hold.transaction_id = staged.parent_id
WHERE
-- include postings.settles(status: staged.status)
    AND hold.status = 'INFLIGHT'
    AND (staged.source_id, staged.destination_id, staged.currency)
    IS DISTINCT FROM (hold.source, hold.destination, hold.currency)
ORDER BY staged.line_number
