-- Count one piece of a run: look at its rows once, and write for those that count activity, exceptions, a digest and
-- the sets of keys. Marks the piece as done, with the number of rows of each fate.
-- run_id, piece, business_date, closes_at, cut, genesis_run_id, time_zone, cut_off: the run and its piece.
-- first_key, last_key: the piece's range. base_run_id, base_business_date, base_closes_at: the base, '-infinity' and
-- NULL without one. cluster_id: this cluster. piece_rows is the piece's kind of work.
-- settled: its status never counts. pending: it cannot be counted as it stands, or its date is later.
-- Amounts in minor units; differences are credit minus debit. Locks no ledger row. Cost: the piece's rows, one scan.
WITH
-- include postings.postings
,

rows_of_piece AS NOT MATERIALIZED (
-- include piece_rows
),

in_key_order AS NOT MATERIALIZED (  -- OFFSET, so that a parent is looked up once, not for each mention below
    SELECT *
    FROM rows_of_piece
    ORDER BY transaction_key
    OFFSET 0
),

looked_at AS NOT MATERIALIZED (
    SELECT
        in_key_order.*,
-- include lacks_parent(row: in_key_order)
            AS lacks_parent
    FROM in_key_order
    ORDER BY in_key_order.transaction_key
    OFFSET 0
),

dated AS MATERIALIZED (
    SELECT
        looked_at.transaction_key,
        looked_at.source,
        looked_at.destination,
        looked_at.currency,
        looked_at.counts,
        looked_at.exception,
        looked_at.rate,
        looked_at.row_text,
        -- Nothing is wrong with the row itself, and sums of its amounts need no numeric. It is a column because the
        -- planner takes conditions IS NULL for rare.
        looked_at.counts
        AND looked_at.exception IS NULL
        AND looked_at.source IS NOT NULL
        AND looked_at.destination IS NOT NULL
        AND looked_at.lacks_parent IS NOT TRUE
        AND GREATEST(looked_at.posted, looked_at.own_hold) <= 9000000000000000000
        AND LEAST(looked_at.posted, looked_at.own_hold) >= -9000000000000000000
            AS is_plain,
        NULLIF(looked_at.posted, 0) AS posted,
        NULLIF(looked_at.own_hold, 0) AS own_hold,
        looked_at.hold_effective_at IS NOT NULL AS is_release,
        CASE
            WHEN NOT looked_at.counts THEN NULL
            WHEN looked_at.exception <> 'legacy_rate' THEN looked_at.exception
            WHEN looked_at.source IS NULL OR looked_at.destination IS NULL THEN 'one_sided'
            WHEN looked_at.lacks_parent THEN 'unknown_parent'
        END AS obstacle,
        CASE  -- NULL: later than the run's business date
            WHEN NOT looked_at.counts THEN CAST(:on_time_date AS date)
            WHEN looked_at.effective_at >= CAST(:closes_at AS timestamptz) THEN NULL
            WHEN looked_at.effective_at >= CAST(:base_closes_at AS timestamptz) THEN CAST(:on_time_date AS date)
            ELSE
-- include business_date(instant: looked_at.effective_at)
        END AS effective_date
    FROM looked_at
),

sums AS NOT MATERIALIZED (  -- of plain rows; grouped by text id, before any join
    SELECT
        balance_id,
        currency,
        effective_date,
        count(*) AS posting_count,
        sum(credit) FILTER (WHERE credit IS NOT NULL) AS credit_balance,
        sum(debit) FILTER (WHERE debit IS NOT NULL) AS debit_balance,
        sum(inflight_credit) FILTER (WHERE inflight_credit IS NOT NULL) AS inflight_credit_balance,
        sum(inflight_debit) FILTER (WHERE inflight_debit IS NOT NULL) AS inflight_debit_balance,
        max(transaction_key) AS last_transaction_key
    FROM (
        SELECT
            destination AS balance_id,
            currency,
            effective_date,
            transaction_key,
            CAST(posted AS bigint) AS credit,
            CAST(NULL AS bigint) AS debit,
            CAST(own_hold AS bigint) AS inflight_credit,
            CAST(NULL AS bigint) AS inflight_debit
        FROM dated
        WHERE is_plain
        UNION ALL
        SELECT
            source AS balance_id,
            currency,
            effective_date,
            transaction_key,
            CAST(NULL AS bigint) AS credit,
            CAST(posted AS bigint) AS debit,
            CAST(NULL AS bigint) AS inflight_credit,
            CAST(own_hold AS bigint) AS inflight_debit
        FROM dated
        WHERE is_plain
    ) AS sides
    GROUP BY balance_id, currency, effective_date
),

keyed AS MATERIALIZED (  -- LEFT, so that a balance that does not exist is seen
    SELECT
        sums.*,
        captured.balance_key,
        captured.currency AS captured_currency
    FROM sums
    LEFT JOIN ledger_eod.captured_balances AS captured
        ON captured.balance_id = sums.balance_id AND captured.first_run_id <= CAST(:run_id AS bigint)
),

suspects AS MATERIALIZED (
    SELECT balance_id
    FROM keyed
    WHERE captured_currency IS DISTINCT FROM currency
),

judged AS MATERIALIZED (  -- the rows that must be looked at one by one, few; LIMIT, so that each is two look-ups
    SELECT
        doubtful.*,
        source.balance_key AS source_key,
        source.currency AS source_currency,
        destination.balance_key AS destination_key,
        destination.currency AS destination_currency,
        CASE
            WHEN doubtful.obstacle IS NOT NULL AND doubtful.obstacle <> 'unknown_parent' THEN doubtful.obstacle
            WHEN source.balance_key IS NULL OR destination.balance_key IS NULL THEN 'unknown_balance'
            ELSE doubtful.obstacle
        END AS found_obstacle
    FROM (
        SELECT *
        FROM dated
        WHERE counts
            AND (
                NOT is_plain
                OR source IN (SELECT suspects.balance_id FROM suspects)
                OR destination IN (SELECT suspects.balance_id FROM suspects)
            )
    ) AS doubtful
    LEFT JOIN LATERAL (
        SELECT
            captured.balance_key,
            captured.currency
        FROM ledger_eod.captured_balances AS captured
        WHERE captured.balance_id = doubtful.source AND captured.first_run_id <= CAST(:run_id AS bigint)
        ORDER BY captured.balance_id
        LIMIT 1
    ) AS source ON TRUE
    LEFT JOIN LATERAL (
        SELECT
            captured.balance_key,
            captured.currency
        FROM ledger_eod.captured_balances AS captured
        WHERE captured.balance_id = doubtful.destination AND captured.first_run_id <= CAST(:run_id AS bigint)
        ORDER BY captured.balance_id
        LIMIT 1
    ) AS destination ON TRUE
),

hindered AS MATERIALIZED (
    SELECT transaction_key
    FROM judged
    WHERE found_obstacle IS NOT NULL
),

touched AS MATERIALIZED (  -- the balances of judged rows: their sums are made anew
    SELECT
        source AS balance_id,
        source_key AS balance_key
    FROM judged
    WHERE source_key IS NOT NULL
    UNION
    SELECT
        destination AS balance_id,
        destination_key AS balance_key
    FROM judged
    WHERE destination_key IS NOT NULL
),

sides AS NOT MATERIALIZED (
    SELECT
        touched.balance_key,
        dated.effective_date,
        dated.transaction_key,
        trunc(dated.posted * dated.rate) AS credit,
        CAST(NULL AS numeric) AS debit,
        trunc(dated.own_hold * dated.rate) AS inflight_credit,
        CAST(NULL AS numeric) AS inflight_debit
    FROM dated
    INNER JOIN touched ON touched.balance_id = dated.destination
    WHERE dated.counts
        AND dated.effective_date IS NOT NULL
        AND dated.transaction_key NOT IN (SELECT hindered.transaction_key FROM hindered)
    UNION ALL
    SELECT
        touched.balance_key,
        dated.effective_date,
        dated.transaction_key,
        CAST(NULL AS numeric) AS credit,
        trunc(dated.posted) AS debit,
        CAST(NULL AS numeric) AS inflight_credit,
        trunc(dated.own_hold) AS inflight_debit
    FROM dated
    INNER JOIN touched ON touched.balance_id = dated.source
    WHERE dated.counts
        AND dated.effective_date IS NOT NULL
        AND dated.transaction_key NOT IN (SELECT hindered.transaction_key FROM hindered)
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
        posting_count,
        COALESCE(credit_balance, 0) AS credit_balance,
        COALESCE(debit_balance, 0) AS debit_balance,
        COALESCE(inflight_credit_balance, 0) AS inflight_credit_balance,
        COALESCE(inflight_debit_balance, 0) AS inflight_debit_balance,
        last_transaction_key
    FROM (
        SELECT
            balance_key,
            effective_date,
            posting_count,
            credit_balance,
            debit_balance,
            inflight_credit_balance,
            inflight_debit_balance,
            last_transaction_key
        FROM keyed
        WHERE effective_date IS NOT NULL
            AND balance_key IS NOT NULL
            AND balance_key NOT IN (SELECT touched.balance_key FROM touched)
        UNION ALL
        SELECT
            balance_key,
            effective_date,
            count(*) AS posting_count,
            sum(credit) AS credit_balance,
            sum(debit) AS debit_balance,
            sum(inflight_credit) AS inflight_credit_balance,
            sum(inflight_debit) AS inflight_debit_balance,
            max(transaction_key) AS last_transaction_key
        FROM sides
        GROUP BY balance_key, effective_date
    ) AS moved
    ORDER BY balance_key
),

parts AS MATERIALIZED (  -- a part is 1,024 keys; pending rows apart
    SELECT
        is_pending,
        effective_date,
        transaction_key >> 10 AS part,
        count(*) AS transaction_count,
        count(*) FILTER (WHERE counts) AS counting_count,
        sum(posted) AS posted_amount,
        sum(own_hold) AS held_amount,
        range_agg(int8range(transaction_key, transaction_key, '[]')) AS keys,
        range_agg(int8range(transaction_key, transaction_key, '[]')) FILTER (WHERE is_release AND counts) AS settling,
-- include digest_of_rows
            AS digest
    FROM (
        SELECT
            transaction_key,
            counts,
            posted,
            own_hold,
            is_release,
            row_text,
            effective_date,
            effective_date IS NULL OR transaction_key IN (SELECT hindered.transaction_key FROM hindered) AS is_pending
        FROM dated
    ) AS placed
    GROUP BY is_pending, effective_date, transaction_key >> 10
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
        older.block,
        older.keys - COALESCE(present.keys, int8multirange()) AS keys
    FROM older
    LEFT JOIN (
        SELECT
            parts.part >> 3 AS block,
            range_agg(spans.span) AS keys
        FROM parts
        CROSS JOIN LATERAL unnest(parts.keys) AS spans (span)
        GROUP BY parts.part >> 3
    ) AS present ON present.block = older.block
),

gone_keys AS MATERIALIZED (
    SELECT generate_series(lower(spans.span), upper(spans.span) - 1) AS transaction_key
    FROM gone
    CROSS JOIN LATERAL unnest(gone.keys) AS spans (span)
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
        COALESCE(sum(difference), 0) AS difference,
        COALESCE(sum(inflight_difference), 0) AS inflight_difference
    FROM (
        SELECT
            transaction_key,
            destination_currency AS currency,
            COALESCE(exception, 'cross_currency') AS cause,
            trunc(posted * rate) AS difference,
            trunc(own_hold * rate) AS inflight_difference
        FROM judged
        WHERE found_obstacle IS NULL
            AND effective_date IS NOT NULL
            AND (source_currency <> destination_currency OR exception IS NOT NULL)
        UNION ALL
        SELECT
            transaction_key,
            source_currency AS currency,
            COALESCE(exception, 'cross_currency') AS cause,
            -trunc(posted) AS difference,
            -trunc(own_hold) AS inflight_difference
        FROM judged
        WHERE found_obstacle IS NULL
            AND effective_date IS NOT NULL
            AND (source_currency <> destination_currency OR exception IS NOT NULL)
        UNION ALL
        SELECT
            transaction_key,
            COALESCE(destination_currency, source_currency, '') AS currency,
            found_obstacle AS cause,
            0 AS difference,
            0 AS inflight_difference
        FROM judged
        WHERE found_obstacle IS NOT NULL
        UNION ALL
        SELECT
            transaction_key,
            '' AS currency,
            'gone' AS cause,
            0 AS difference,
            0 AS inflight_difference
        FROM gone_keys
    ) AS itemised
    GROUP BY transaction_key, currency, cause
),

written_keys AS (
    INSERT INTO ledger_eod.run_keys (run_id, key_set, piece, effective_date, block, keys)
    SELECT
        CAST(:run_id AS bigint) AS run_id,
        CAST(placed.key_set AS ledger_eod.key_set) AS key_set,
        CAST(:piece AS integer) AS piece,
        placed.effective_date,
        placed.block,
        range_agg(spans.span) AS keys
    FROM (
        SELECT
            CASE WHEN is_pending THEN 'pending' ELSE 'counted' END AS key_set,
            CASE WHEN is_pending THEN CAST(:business_date AS date) ELSE effective_date END AS effective_date,
            part >> 3 AS block,
            keys
        FROM parts
        UNION ALL
        SELECT
            'settling' AS key_set,
            CAST(:business_date AS date) AS effective_date,
            part >> 3 AS block,
            settling AS keys
        FROM parts
        WHERE NOT is_pending
        UNION ALL
        SELECT
            'pending' AS key_set,
            CAST(:business_date AS date) AS effective_date,
            block,
            keys
        FROM gone
    ) AS placed
    CROSS JOIN LATERAL unnest(placed.keys) AS spans (span)
    GROUP BY placed.key_set, placed.effective_date, placed.block
),

written_samples AS (
    INSERT INTO ledger_eod.sampled_rows (run_id, transaction_key, key_set, transaction_id)
    SELECT
        CAST(:run_id AS bigint) AS run_id,
        sampled.transaction_key,
        CAST(sampled.key_set AS ledger_eod.key_set) AS key_set,
        named.transaction_id
    FROM (
        SELECT
            lower(keys) AS transaction_key,
            CASE WHEN is_pending THEN 'pending' ELSE 'counted' END AS key_set
        FROM parts
        UNION
        SELECT
            upper(keys) - 1 AS transaction_key,
            CASE WHEN is_pending THEN 'pending' ELSE 'counted' END AS key_set
        FROM parts
    ) AS sampled
    CROSS JOIN LATERAL (
        SELECT t.transaction_id
        FROM blnk.transactions AS t
        WHERE t.id = sampled.transaction_key
        ORDER BY t.id
        LIMIT 1
    ) AS named
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
        COALESCE(sum(posted_amount), 0) AS posted_amount,
        COALESCE(sum(held_amount), 0) AS held_amount,
-- include digest_of_parts
            AS digest
    FROM parts
    WHERE NOT is_pending
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
        COALESCE(sum(counting_count) FILTER (WHERE NOT is_pending), 0) AS counted_count,
        COALESCE(sum(transaction_count - counting_count) FILTER (WHERE NOT is_pending), 0) AS settled_count,
        COALESCE(sum(transaction_count) FILTER (WHERE is_pending), 0) AS pending_count,
        (SELECT count(*) FROM gone_keys) AS gone_count
    FROM parts
) AS fates
WHERE run_pieces.run_id = CAST(:run_id AS bigint) AND run_pieces.piece = CAST(:piece AS integer)
