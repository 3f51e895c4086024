-- The business dates on which the rows that a run counted add up to something else than the previous chain stored when
-- it counted: by what they post and hold. For a table that was made anew, whose rows have other keys.
-- What the first close of a chain counted is all of its date; rows of later dates are left out.
-- run_id: the run that begins the new chain. previous_run_id, previous_genesis_run_id: the chain's last close.
-- Returns effective_date. Read-only. Cost: one pass over the ledger.
WITH
-- include postings.postings
,

counted AS MATERIALIZED (
-- include keys_by_block(run_id: CAST(:run_id AS bigint); key_set: counted)
),

closes AS MATERIALIZED (
    SELECT
        closing.run_id,
        closing.business_date,
        closing.closes_at,
        COALESCE(lag(closing.closes_at) OVER (ORDER BY closing.closes_at), '-infinity') AS opens_at
    FROM ledger_eod.runs AS closing
    WHERE
-- include in_chain(
--     run: closing
--     genesis_run_id: CAST(:previous_genesis_run_id AS bigint)
--     run_id: CAST(:previous_run_id AS bigint)
-- )
),

stored AS (
    SELECT
        GREATEST(amounts.effective_date, (SELECT min(closes.business_date) FROM closes)) AS effective_date,
        sum(amounts.posted_amount) AS posted_amount,
        sum(amounts.held_amount) AS held_amount
    FROM (
        SELECT
            run_id,
            effective_date,
            posted_amount,
            held_amount
        FROM ledger_eod.row_digests
        UNION ALL
        SELECT
            run_id,
            effective_date,
            posted_amount,
            held_amount
        FROM ledger_eod.row_checksums  -- of closes from before rows were counted by their keys
    ) AS amounts
    WHERE amounts.run_id IN (SELECT closes.run_id FROM closes)
    GROUP BY GREATEST(amounts.effective_date, (SELECT min(closes.business_date) FROM closes))
),

present AS (
    SELECT
        closes.business_date AS effective_date,
        COALESCE(sum(trunc(ruled.posted)), 0) AS posted_amount,
        COALESCE(sum(trunc(ruled.own_hold)), 0) AS held_amount
    FROM ruled_transactions AS ruled
    INNER JOIN counted
        ON counted.block = ruled.transaction_key >> 13 AND counted.keys @> CAST(ruled.transaction_key AS bigint)
    INNER JOIN closes ON closes.opens_at <= ruled.effective_at AND closes.closes_at > ruled.effective_at
    WHERE ruled.counts
    GROUP BY closes.business_date
)

SELECT effective_date
FROM stored
FULL JOIN present USING (effective_date)
WHERE (COALESCE(stored.posted_amount, 0), COALESCE(stored.held_amount, 0))
    IS DISTINCT FROM (COALESCE(present.posted_amount, 0), COALESCE(present.held_amount, 0))
ORDER BY effective_date
