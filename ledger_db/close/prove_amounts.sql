-- The pieces of a run whose rows say something else than what its activity moved: the first of them. Minor units.
-- A counted row moves two balances, and what it posts or puts on hold is taken from one of them in full.
-- run_id: the run. Returns piece, what, rows_say, activity_says. Read-only. Cost: the run's activity.
WITH said AS (
    SELECT
        run_pieces.piece,
        2 * max(run_pieces.counted_count) AS posting_count,
        COALESCE(sum(row_digests.posted_amount), 0) AS posted_amount,
        COALESCE(sum(row_digests.held_amount), 0) AS held_amount
    FROM ledger_eod.run_pieces
    LEFT JOIN ledger_eod.row_digests
        ON row_digests.run_id = run_pieces.run_id AND row_digests.piece = run_pieces.piece
    WHERE run_pieces.run_id = CAST(:run_id AS bigint) AND run_pieces.work <> 'holds'
    GROUP BY run_pieces.piece
),

moved AS (
    SELECT
        piece,
        sum(posting_count) AS posting_count,
        sum(debit_balance) AS posted_amount,
        sum(inflight_debit_balance) AS held_amount
    FROM ledger_eod.activity
    WHERE run_id = CAST(:run_id AS bigint)
    GROUP BY piece
),

compared AS (
    SELECT
        said.piece,
        'postings' AS what,
        said.posting_count AS rows_say,
        COALESCE(moved.posting_count, 0) AS activity_says
    FROM said
    LEFT JOIN moved ON moved.piece = said.piece
    UNION ALL
    SELECT
        said.piece,
        'posted' AS what,
        said.posted_amount AS rows_say,
        COALESCE(moved.posted_amount, 0) AS activity_says
    FROM said
    LEFT JOIN moved ON moved.piece = said.piece
    UNION ALL
    SELECT
        said.piece,
        'on hold' AS what,
        said.held_amount AS rows_say,
        COALESCE(moved.held_amount, 0) AS activity_says
    FROM said
    LEFT JOIN moved ON moved.piece = said.piece
)

SELECT
    piece,
    what,
    rows_say,
    activity_says
FROM compared
WHERE rows_say <> activity_says
ORDER BY piece, what
LIMIT 1
