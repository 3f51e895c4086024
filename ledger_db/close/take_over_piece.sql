-- Do a piece of a close from pieces that were counted in advance: their activity, exceptions, keys and digests are put
-- together under this piece. Marks it as done, unless they do not lie end to end over its range: then it stays undone.
-- run_id, piece: the close and its piece. first_key, last_key: the piece's range.
-- Amounts in minor units. Reads no ledger row. Cost: what is stored of these pieces.
WITH taken AS MATERIALIZED (
    SELECT pieces.*
    FROM (
-- include done_in_advance
    ) AS pieces
    WHERE pieces.first_key >= CAST(:first_key AS bigint) AND pieces.last_key <= CAST(:last_key AS bigint)
),

whole AS MATERIALIZED (  -- one row, or none
    SELECT
        sum(counted_count) AS counted_count,
        sum(settled_count) AS settled_count,
        sum(pending_count) AS pending_count
    FROM taken
    HAVING range_agg(int8range(first_key, last_key, '[]'))
        = int8multirange(int8range(CAST(:first_key AS bigint), CAST(:last_key AS bigint), '[]'))
        AND sum(CAST(last_key AS numeric) - first_key + 1) = CAST(:last_key AS numeric) - CAST(:first_key AS bigint) + 1
),

written_activity AS (
    INSERT INTO ledger_eod.activity (
        run_id, balance_key, effective_date, piece, is_late, posting_count, credit_balance, debit_balance,
        inflight_credit_balance, inflight_debit_balance, last_transaction_key
    )
    SELECT
        CAST(:run_id AS bigint) AS run_id,
        activity.balance_key,
        activity.effective_date,
        CAST(:piece AS integer) AS piece,
        bool_or(activity.is_late) AS is_late,
        sum(activity.posting_count) AS posting_count,
        sum(activity.credit_balance) AS credit_balance,
        sum(activity.debit_balance) AS debit_balance,
        sum(activity.inflight_credit_balance) AS inflight_credit_balance,
        sum(activity.inflight_debit_balance) AS inflight_debit_balance,
        max(activity.last_transaction_key) AS last_transaction_key
    FROM whole
    CROSS JOIN taken
    INNER JOIN ledger_eod.activity ON activity.run_id = taken.run_id AND activity.piece = taken.piece
    GROUP BY activity.balance_key, activity.effective_date
    ORDER BY activity.balance_key
),

written_exceptions AS (
    INSERT INTO ledger_eod.run_exceptions (
        run_id, transaction_key, currency, piece, cause, difference, inflight_difference
    )
    SELECT
        CAST(:run_id AS bigint) AS run_id,
        itemised.transaction_key,
        itemised.currency,
        CAST(:piece AS integer) AS piece,
        itemised.cause,
        itemised.difference,
        itemised.inflight_difference
    FROM whole
    CROSS JOIN taken
    INNER JOIN ledger_eod.run_exceptions AS itemised
        ON itemised.run_id = taken.run_id AND itemised.piece = taken.piece
),

written_keys AS (
    INSERT INTO ledger_eod.run_keys (run_id, key_set, piece, effective_date, block, keys)
    SELECT
        CAST(:run_id AS bigint) AS run_id,
        known.key_set,
        CAST(:piece AS integer) AS piece,
        known.effective_date,
        known.block,
        range_agg(spans.span) AS keys
    FROM whole
    CROSS JOIN taken
    INNER JOIN ledger_eod.run_keys AS known ON known.run_id = taken.run_id AND known.piece = taken.piece
    CROSS JOIN LATERAL unnest(known.keys) AS spans (span)
    GROUP BY known.key_set, known.effective_date, known.block
),

written_samples AS (
    INSERT INTO ledger_eod.sampled_rows (run_id, transaction_key, key_set, transaction_id)
    SELECT
        CAST(:run_id AS bigint) AS run_id,
        sampled.transaction_key,
        sampled.key_set,
        sampled.transaction_id
    FROM whole
    CROSS JOIN taken
    INNER JOIN ledger_eod.sampled_rows AS sampled
        ON sampled.run_id = taken.run_id AND sampled.transaction_key BETWEEN taken.first_key AND taken.last_key
),

written_digests AS (
    INSERT INTO ledger_eod.row_digests (
        run_id, piece, effective_date, transaction_count, posted_amount, held_amount, digest
    )
    SELECT
        CAST(:run_id AS bigint) AS run_id,
        CAST(:piece AS integer) AS piece,
        effective_date,
        sum(transaction_count) AS transaction_count,
        sum(posted_amount) AS posted_amount,
        sum(held_amount) AS held_amount,
-- include digest_of_parts
            AS digest
    FROM (
        SELECT parts.*
        FROM whole
        CROSS JOIN taken
        INNER JOIN ledger_eod.prepared_parts AS parts ON parts.run_id = taken.run_id AND parts.piece = taken.piece
    ) AS parts_of_piece
    GROUP BY effective_date
)

UPDATE ledger_eod.run_pieces
SET
    done_at = clock_timestamp(),
    counted_count = whole.counted_count,
    settled_count = whole.settled_count,
    pending_count = whole.pending_count
FROM whole
WHERE run_pieces.run_id = CAST(:run_id AS bigint) AND run_pieces.piece = CAST(:piece AS integer)
