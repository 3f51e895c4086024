-- Holds that a recorded import takes more from than was left. Returns line, problem: the last line that settles each.
-- Reads import_rows and import_holds. Minor units. Cost: these holds and what was recorded for them.
WITH
-- include postings.postings
,

held AS MATERIALIZED (  -- ANY (ARRAY …): the keys reach the table's index
    SELECT transaction_key, sum(inflight_debit) AS held
    FROM postings
    WHERE transaction_key = ANY(ARRAY(SELECT import_holds.transaction_key FROM import_holds))
    GROUP BY transaction_key
),

overdrawn AS MATERIALIZED (
    SELECT import_holds.hold_key, -sum(held.held) AS excess
    FROM import_holds
    JOIN held ON held.transaction_key = import_holds.transaction_key
    GROUP BY import_holds.hold_key
    HAVING sum(held.held) < 0
)

SELECT
    max(staged.line_number) AS line,
    format(
        '%s minor units more than hold %s had left', trim_scale(overdrawn.excess), min(staged.parent_reference)
    ) AS problem
FROM overdrawn
JOIN blnk.transactions AS hold ON hold.id = overdrawn.hold_key
JOIN import_rows AS staged ON staged.parent_id = hold.transaction_id
WHERE
-- include postings.settles(status: staged.status)
GROUP BY overdrawn.hold_key, overdrawn.excess
ORDER BY line
