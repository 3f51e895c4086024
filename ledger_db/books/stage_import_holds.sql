-- The holds that a recorded import settles, each with its own key and those of everything recorded for it, before or in
-- this import. A table, to be analyzed: a join of two sets whose size the planner cannot know may take quadratic time.
CREATE TEMPORARY TABLE import_holds ON COMMIT DROP AS
WITH holds AS (
    SELECT DISTINCT hold.id AS hold_key, hold.transaction_id
    FROM import_rows AS staged
    JOIN blnk.transactions AS hold ON hold.transaction_id = staged.parent_id
    WHERE
-- include postings.settles(status: staged.status)
        AND hold.status = 'INFLIGHT'
)

SELECT hold_key, hold_key AS transaction_key
FROM holds
UNION ALL
SELECT holds.hold_key, child.id AS transaction_key
FROM holds
JOIN blnk.transactions AS child ON child.parent_transaction = holds.transaction_id
