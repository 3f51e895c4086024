-- Holds from which a recorded import takes more than was left. Reads import_rows and import_holds.
-- Returns line and problem, in line order; the line is the last one that settles the hold. Amounts in minor units.
-- Cost: these holds and what was recorded for them, by index.
WITH
-- include postings.postings
,

held AS MATERIALIZED (  -- with ANY(ARRAY(…)) the condition on the key reaches the table's index
    SELECT
        transaction_key,
        sum(inflight_debit) AS held
    FROM postings
    WHERE transaction_key = ANY(ARRAY(SELECT import_holds.transaction_key FROM import_holds))
    GROUP BY transaction_key
),

overdrawn AS MATERIALIZED (
    SELECT
        import_holds.hold_key,
        -sum(held.held) AS excess
    FROM import_holds
    INNER JOIN held ON held.transaction_key = import_holds.transaction_key
    GROUP BY import_holds.hold_key
    HAVING sum(held.held) < 0
)

SELECT
    max(staged.line_number) AS line,
    format(
        '%s minor units more than hold %s had left', trim_scale(overdrawn.excess), min(staged.parent_reference)
    ) AS problem
FROM overdrawn
INNER JOIN blnk.transactions AS hold ON hold.id = overdrawn.hold_key
INNER JOIN import_rows AS staged ON staged.parent_id = hold.transaction_id
WHERE
-- include postings.settles(status: staged.status)
GROUP BY overdrawn.hold_key, overdrawn.excess
ORDER BY line
