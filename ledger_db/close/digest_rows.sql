-- The rows of one piece of a run by business date: their number, what they post and hold, and their digest. The rows
-- are those of the keys that it counted, as they are now; keys without a row are left out.
-- run_id, piece: the run and its piece. posted_amount, held_amount: minor units, unsigned; releases of holds are not in
-- them. Read-only. Cost: these rows, by primary key.
WITH
-- include postings.postings
,

present AS (
    SELECT
        ruled.*,
        counted.piece,
        counted.effective_date
    FROM ledger_eod.run_keys AS counted
    CROSS JOIN LATERAL unnest(counted.keys) AS spans (span)
    CROSS JOIN
        LATERAL (  -- ORDER BY, so that each span stays a look-up: as a join it may read the whole ledger
            SELECT
                ruled_transactions.transaction_key,
                ruled_transactions.row_digest,
                CASE WHEN ruled_transactions.counts THEN trunc(ruled_transactions.posted) ELSE 0 END AS posted,
                CASE WHEN ruled_transactions.counts THEN trunc(ruled_transactions.own_hold) ELSE 0 END AS own_hold
            FROM ruled_transactions
            WHERE ruled_transactions.transaction_key >= lower(spans.span)
                AND ruled_transactions.transaction_key < upper(spans.span)
            ORDER BY ruled_transactions.transaction_key
        ) AS ruled
    WHERE counted.run_id = CAST(:run_id AS bigint)
        AND counted.key_set = 'counted'
        AND counted.piece = CAST(:piece AS integer)
),

digested AS (
    SELECT
        piece,
        effective_date,
        transaction_key >> 10 AS part,
        count(*) AS transaction_count,
        sum(posted) AS posted_amount,
        sum(own_hold) AS held_amount,
-- include digest_of_rows
            AS digest
    FROM present
    GROUP BY piece, effective_date, transaction_key >> 10
)

SELECT
    piece,
    effective_date,
    sum(transaction_count) AS transaction_count,
    sum(posted_amount) AS posted_amount,
    sum(held_amount) AS held_amount,
-- include digest_of_parts
        AS digest
FROM digested
GROUP BY piece, effective_date
ORDER BY effective_date
