-- Count one piece of a run: look at its rows once, and write for those that count activity, exceptions, a digest and
-- the sets of keys. Marks the piece as done. Returns counted_count, settled_count, pending_count, gone_count.
-- run_id, piece, business_date, closes_at, cut, genesis_run_id, time_zone, cut_off: the run and its piece.
-- first_key, last_key: the piece's range. base_run_id, base_business_date, base_closes_at: the base, '-infinity' and
-- NULL without one. cluster_id: this cluster. piece_rows is the piece's kind of work.
-- settled: its status never counts. pending: it cannot be counted as it stands, or its date is later.
-- Amounts in minor units; differences are credit minus debit. Locks no ledger row. Cost: the piece's rows, one scan.
WITH
-- include postings.postings
,

looked_at AS MATERIALIZED (
-- include piece_rows
),

named AS MATERIALIZED (  -- the balances of the piece
    SELECT
        captured.balance_id,
        captured.balance_key,
        captured.currency
    FROM (
        SELECT source AS balance_id FROM looked_at
        WHERE counts
        UNION
        SELECT destination AS balance_id FROM looked_at
        WHERE counts
    ) AS mentioned
    INNER JOIN ledger_eod.captured_balances AS captured ON captured.balance_id = mentioned.balance_id
    WHERE captured.first_run_id <= CAST(:run_id AS bigint)
),

checked AS NOT MATERIALIZED (  -- LEFT, so that a row on a balance that does not exist is seen
    SELECT
        looked_at.*,
        source.balance_key AS source_key,
        source.currency AS source_currency,
        destination.balance_key AS destination_key,
        destination.currency AS destination_currency,
        CASE
            WHEN NOT looked_at.counts THEN NULL
            WHEN looked_at.exception <> 'legacy_rate' THEN looked_at.exception
            WHEN looked_at.source IS NULL OR looked_at.destination IS NULL THEN 'one_sided'
            WHEN source.balance_key IS NULL OR destination.balance_key IS NULL THEN 'unknown_balance'
            WHEN looked_at.lacks_parent THEN 'unknown_parent'
        END AS obstacle
    FROM looked_at
    LEFT JOIN named AS source ON source.balance_id = looked_at.source
    LEFT JOIN named AS destination ON destination.balance_id = looked_at.destination
),

judged AS MATERIALIZED (
    SELECT
        checked.transaction_key,
        checked.source_key,
        checked.source_currency,
        checked.destination_key,
        checked.destination_currency,
        checked.posted,
        checked.own_hold,
        checked.rate,
        checked.exception,
        checked.obstacle,
        checked.row_digest,
        checked.hold_effective_at IS NOT NULL AS is_release,
        CASE
            WHEN NOT checked.counts THEN 'settled'
            WHEN checked.obstacle IS NOT NULL OR checked.effective_at >= CAST(:closes_at AS timestamptz) THEN 'pending'
            ELSE 'counted'
        END AS fate,
        CASE
            WHEN NOT checked.counts OR checked.effective_at >= CAST(:base_closes_at AS timestamptz)
                THEN CAST(:on_time_date AS date)
            ELSE
-- include business_date(instant: checked.effective_at)
        END AS effective_date
    FROM checked
),

sides AS NOT MATERIALIZED (
    SELECT
        destination_key AS balance_key,
        effective_date,
        transaction_key,
        TRUE AS is_credit,
        trunc(posted * rate) AS posted,
        trunc(own_hold * rate) AS own_hold
    FROM judged
    WHERE fate = 'counted'
    UNION ALL
    SELECT
        source_key AS balance_key,
        effective_date,
        transaction_key,
        FALSE AS is_credit,
        trunc(posted) AS posted,
        trunc(own_hold) AS own_hold
    FROM judged
    WHERE fate = 'counted'
),

written_activity AS (  -- in key order, which the primary key takes fastest
    INSERT INTO ledger_eod.activity (
        run_id, balance_key, effective_date, piece, is_late, posting_count, credit_balance, debit_balance,
        inflight_credit_balance, inflight_debit_balance, last_transaction_key
    )
    SELECT
        CAST(:run_id AS bigint) AS run_id,
        balance_key,
        effective_date,
        CAST(:piece AS integer) AS piece,
        COALESCE(effective_date <= CAST(:base_business_date AS date), FALSE) AS is_late,
        count(*) AS posting_count,
        COALESCE(sum(posted) FILTER (WHERE is_credit AND posted <> 0), 0) AS credit_balance,
        COALESCE(sum(posted) FILTER (WHERE NOT is_credit AND posted <> 0), 0) AS debit_balance,
        COALESCE(sum(own_hold) FILTER (WHERE is_credit AND own_hold <> 0), 0) AS inflight_credit_balance,
        COALESCE(sum(own_hold) FILTER (WHERE NOT is_credit AND own_hold <> 0), 0) AS inflight_debit_balance,
        max(transaction_key) AS last_transaction_key
    FROM sides
    GROUP BY balance_key, effective_date
    ORDER BY balance_key
),

older AS MATERIALIZED (  -- empty for a piece of new keys
    SELECT
        block,
        keys
    FROM ledger_eod.run_keys
    WHERE run_id = CAST(:run_id AS bigint)
        AND key_set = 'older'
        AND block BETWEEN CAST(:first_key AS bigint) >> 13 AND CAST(:last_key AS bigint) >> 13
        AND CAST(:is_older AS boolean)
),

gone AS MATERIALIZED (
    SELECT
        block,
        generate_series(lower(span), upper(span) - 1) AS transaction_key
    FROM (
        SELECT
            older.block,
            unnest(older.keys - COALESCE(present.keys, int8multirange())) AS span
        FROM older
        LEFT JOIN (
            SELECT
                transaction_key >> 13 AS block,
                range_agg(int8range(transaction_key, transaction_key, '[]')) AS keys
            FROM judged
            GROUP BY transaction_key >> 13
        ) AS present ON present.block = older.block
    ) AS missing
),

written_exceptions AS (
    INSERT INTO ledger_eod.run_exceptions (
        run_id, transaction_key, currency, piece, cause, difference, inflight_difference
    )
    SELECT
        CAST(:run_id AS bigint) AS run_id,
        transaction_key,
        currency,
        CAST(:piece AS integer) AS piece,
        cause,
        sum(difference) AS difference,
        sum(inflight_difference) AS inflight_difference
    FROM (
        SELECT
            transaction_key,
            destination_currency AS currency,
            COALESCE(exception, 'cross_currency') AS cause,
            trunc(posted * rate) AS difference,
            trunc(own_hold * rate) AS inflight_difference
        FROM judged
        WHERE fate = 'counted' AND (source_currency <> destination_currency OR exception IS NOT NULL)
        UNION ALL
        SELECT
            transaction_key,
            source_currency AS currency,
            COALESCE(exception, 'cross_currency') AS cause,
            -trunc(posted) AS difference,
            -trunc(own_hold) AS inflight_difference
        FROM judged
        WHERE fate = 'counted' AND (source_currency <> destination_currency OR exception IS NOT NULL)
        UNION ALL
        SELECT
            transaction_key,
            COALESCE(destination_currency, source_currency, '') AS currency,
            obstacle AS cause,
            0 AS difference,
            0 AS inflight_difference
        FROM judged
        WHERE obstacle IS NOT NULL
        UNION ALL
        SELECT
            transaction_key,
            '' AS currency,
            'gone' AS cause,
            0 AS difference,
            0 AS inflight_difference
        FROM gone
    ) AS itemised
    GROUP BY transaction_key, currency, cause
),

written_keys AS (
    INSERT INTO ledger_eod.run_keys (run_id, key_set, piece, effective_date, block, keys)
    SELECT
        CAST(:run_id AS bigint) AS run_id,
        CAST(key_set AS ledger_eod.key_set) AS key_set,
        CAST(:piece AS integer) AS piece,
        effective_date,
        transaction_key >> 13 AS block,
        range_agg(int8range(transaction_key, transaction_key, '[]')) AS keys
    FROM (
        SELECT
            'counted' AS key_set,
            effective_date,
            transaction_key
        FROM judged
        WHERE fate <> 'pending'
        UNION ALL
        SELECT
            'pending' AS key_set,
            CAST(:business_date AS date) AS effective_date,
            transaction_key
        FROM judged
        WHERE fate = 'pending'
        UNION ALL
        SELECT
            'pending' AS key_set,
            CAST(:business_date AS date) AS effective_date,
            transaction_key
        FROM gone
        UNION ALL
        SELECT
            'settling' AS key_set,
            CAST(:business_date AS date) AS effective_date,
            transaction_key
        FROM judged
        WHERE fate = 'counted' AND is_release
    ) AS placed
    GROUP BY key_set, effective_date, transaction_key >> 13
),

digested AS (
    SELECT
        effective_date,
        count(*) AS transaction_count,
        sum(CASE WHEN fate = 'counted' THEN trunc(posted) ELSE 0 END) AS posted_amount,
        sum(CASE WHEN fate = 'counted' THEN trunc(own_hold) ELSE 0 END) AS held_amount,
        transaction_key >> 10 AS part,
-- include digest_of_rows
            AS digest
    FROM judged
    WHERE fate <> 'pending'
    GROUP BY effective_date, transaction_key >> 10
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
    FROM digested
    GROUP BY effective_date
)

UPDATE ledger_eod.run_pieces
SET
    done_at = clock_timestamp(),
    counted_count = fates.counted_count,
    settled_count = fates.settled_count,
    pending_count = fates.pending_count + fates.gone_count,
    gone_count = fates.gone_count
FROM (
    SELECT
        count(*) FILTER (WHERE fate = 'counted') AS counted_count,
        count(*) FILTER (WHERE fate = 'settled') AS settled_count,
        count(*) FILTER (WHERE fate = 'pending') AS pending_count,
        (SELECT count(*) FROM gone) AS gone_count
    FROM judged
) AS fates
WHERE run_pieces.run_id = CAST(:run_id AS bigint) AND run_pieces.piece = CAST(:piece AS integer)
