-- The holds that a recorded import settles: each hold's key, with its own row's key and those of all rows recorded for
-- it, before or in this import. A temporary table, so that it can be analyzed: the planner cannot estimate these two
-- sets, and a wrong estimate makes the join take quadratic time. Cost: the file and the holds' children, by index.
CREATE TEMPORARY TABLE import_holds ON COMMIT DROP AS
WITH holds AS (
    SELECT DISTINCT
        hold.id AS hold_key,
        hold.transaction_id
    FROM import_rows AS staged
    INNER JOIN blnk.transactions AS hold ON hold.transaction_id = staged.parent_id
    WHERE
-- include postings.settles(status: staged.status)
        AND hold.status = 'INFLIGHT'
)

SELECT
    hold_key,
    hold_key AS transaction_key
FROM holds
UNION ALL
SELECT
    holds.hold_key,
    child.id AS transaction_key
FROM holds
INNER JOIN blnk.transactions AS child ON child.parent_transaction = holds.transaction_id
