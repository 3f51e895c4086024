-- Count one piece of a run: look at its rows once, and write for those that count activity, exceptions, a digest and
-- the sets of keys. Marks the piece as done, with the number of rows of each fate.
-- run_id, piece, business_date, closes_at, cut, genesis_run_id, time_zone, cut_off: the run and its piece.
-- first_key, last_key: the piece's range. base_run_id, base_business_date, base_closes_at: the base, '-infinity' and
-- NULL without one. cluster_id: this cluster. rules: of fingerprint_of_rows, for a preparation; else NULL.
-- is_whole: the run stores all that it leaves pending, and not only what was not pending at its base.
-- piece_rows is the piece's kind of work; answered_balances is prepared_balances for a preparation.
-- settled: its status never counts. pending: it cannot be counted as it stands, or its date is later.
-- Amounts in minor units; differences are credit minus debit. Locks no ledger row. Cost: the piece's rows, one scan.
WITH
-- include postings.postings
,

carried AS MATERIALIZED (  -- pending at the base; empty for a piece of new keys
    SELECT
        pending.block,
        pending.keys
    FROM (
-- include pending_keys(base: base)
    ) AS pending
    WHERE CAST(:is_older AS boolean)
        AND pending.block BETWEEN CAST(:first_key AS bigint) >> 13 AND CAST(:last_key AS bigint) >> 13
),

older AS MATERIALIZED (  -- empty for a piece of new keys
    SELECT
        candidates.block,
        range_agg(candidates.span) AS keys
    FROM (
        SELECT
            carried.block,
            unnest(carried.keys) AS span
        FROM carried
        UNION ALL
        SELECT
            straggling.block,
            unnest(straggling.keys) AS span
        FROM ledger_eod.run_keys AS straggling
        WHERE straggling.run_id = CAST(:run_id AS bigint)
            AND straggling.key_set = 'older'
            AND straggling.block BETWEEN CAST(:first_key AS bigint) >> 13 AND CAST(:last_key AS bigint) >> 13
            AND CAST(:is_older AS boolean)
    ) AS candidates
    GROUP BY candidates.block
),

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
            AS lacks_parent,
        in_key_order.exception IS NULL
        AND in_key_order.own_hold = 0
        AND in_key_order.posted BETWEEN -9000000000000000000 AND 9000000000000000000
            AS is_small
    FROM in_key_order
    ORDER BY in_key_order.transaction_key
    OFFSET 0
),

states AS NOT MATERIALIZED (
    SELECT
        looked_at.transaction_key,
-- include row_state(row: looked_at)
            AS row_state
    FROM looked_at
),

fingerprinted AS NOT MATERIALIZED (
    SELECT
-- include fingerprint_of_rows(rows: states)
            AS fingerprint
    FROM states
),

answered AS NOT MATERIALIZED (
-- include answered_balances
),

dated AS MATERIALIZED (
    SELECT
        looked_at.transaction_key,
        source.balance_key AS source_key,
        destination.balance_key AS destination_key,
        looked_at.counts,
        looked_at.exception,
        looked_at.rate,
        looked_at.row_digest,
        looked_at.is_small,
        looked_at.hold_effective_at IS NOT NULL AS is_release,
        source.currency <> destination.currency AS is_cross_currency,
        CASE WHEN looked_at.is_small THEN CAST(looked_at.posted AS bigint) END AS small_posted,
        CASE WHEN NOT looked_at.is_small THEN looked_at.posted END AS posted,
        NULLIF(looked_at.own_hold, 0) AS own_hold,
        CASE  -- why it cannot be counted as it stands
            WHEN NOT looked_at.counts THEN NULL
            WHEN looked_at.exception <> 'legacy_rate' THEN looked_at.exception
            WHEN looked_at.source IS NULL OR looked_at.destination IS NULL THEN 'one_sided'
            WHEN source.balance_key IS NULL OR destination.balance_key IS NULL THEN 'unknown_balance'
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
    LEFT JOIN answered AS source ON source.balance_id = looked_at.source
    LEFT JOIN answered AS destination ON destination.balance_id = looked_at.destination
),

remarkable AS MATERIALIZED (  -- of the rows that count, those that are not plain; few
    SELECT *
    FROM dated
    WHERE counts
        AND
-- include is_plain
        IS NOT TRUE
),

-- Plain rows are summed apart from the others, and their credits from their debits, by balance alone: a sum costs as
-- much when it has nothing to add.
plain AS NOT MATERIALIZED (
    SELECT
        transaction_key,
        source_key,
        destination_key,
        small_posted
    FROM dated
    WHERE counts
        AND
-- include is_plain
),

plain_credits AS NOT MATERIALIZED (
    SELECT
        destination_key AS balance_key,
        count(*) AS posting_count,
        sum(small_posted) AS amount,
        max(transaction_key) AS last_transaction_key
    FROM plain
    GROUP BY destination_key
),

plain_debits AS NOT MATERIALIZED (
    SELECT
        source_key AS balance_key,
        count(*) AS posting_count,
        sum(small_posted) AS amount,
        max(transaction_key) AS last_transaction_key
    FROM plain
    GROUP BY source_key
),

plain_sums AS NOT MATERIALIZED (
    SELECT
        balance_key,
        plain_credits.amount AS credit,
        plain_debits.amount AS debit,
        CAST(:on_time_date AS date) AS effective_date,
        COALESCE(plain_credits.posting_count, 0) + COALESCE(plain_debits.posting_count, 0) AS posting_count,
        GREATEST(plain_credits.last_transaction_key, plain_debits.last_transaction_key) AS last_transaction_key
    FROM plain_credits
    FULL JOIN plain_debits USING (balance_key)
),

other_sums AS NOT MATERIALIZED (
    SELECT
        balance_key,
        effective_date,
        count(*) AS posting_count,
        sum(credit) AS credit,
        sum(debit) AS debit,
        sum(inflight_credit) AS inflight_credit,
        sum(inflight_debit) AS inflight_debit,
        max(transaction_key) AS last_transaction_key
    FROM (
        SELECT
            destination_key AS balance_key,
            effective_date,
            transaction_key,
            COALESCE(small_posted, trunc(posted * rate)) AS credit,
            CAST(NULL AS numeric) AS debit,
            trunc(own_hold * rate) AS inflight_credit,
            CAST(NULL AS numeric) AS inflight_debit
        FROM remarkable
        WHERE obstacle IS NULL AND effective_date IS NOT NULL
        UNION ALL
        SELECT
            source_key AS balance_key,
            effective_date,
            transaction_key,
            CAST(NULL AS numeric) AS credit,
            COALESCE(small_posted, trunc(posted)) AS debit,
            CAST(NULL AS numeric) AS inflight_credit,
            trunc(own_hold) AS inflight_debit
        FROM remarkable
        WHERE obstacle IS NULL AND effective_date IS NOT NULL
    ) AS sides
    GROUP BY balance_key, effective_date
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
        COALESCE(plain_sums.posting_count, 0) + COALESCE(other_sums.posting_count, 0) AS posting_count,
        COALESCE(plain_sums.credit, 0) + COALESCE(other_sums.credit, 0) AS credit_balance,
        COALESCE(plain_sums.debit, 0) + COALESCE(other_sums.debit, 0) AS debit_balance,
        COALESCE(other_sums.inflight_credit, 0) AS inflight_credit_balance,
        COALESCE(other_sums.inflight_debit, 0) AS inflight_debit_balance,
        GREATEST(plain_sums.last_transaction_key, other_sums.last_transaction_key) AS last_transaction_key
    FROM plain_sums
    FULL JOIN other_sums USING (balance_key, effective_date)
    ORDER BY balance_key
),

itemised AS MATERIALIZED (  -- what does not count, or does not cancel out within a currency; few rows
    SELECT
        transaction_key,
        source_key,
        destination_key,
        exception,
        obstacle,
        rate,
        own_hold,
        COALESCE(posted, small_posted) AS posted
    FROM remarkable
    WHERE obstacle IS NOT NULL
        OR (effective_date IS NOT NULL AND (exception IS NOT NULL OR is_cross_currency))
),

-- A part is 1,024 keys; pending rows apart. Rows of the date itself are taken apart from the others, too: nearly all
-- are, and alone they come in the order of their keys, which takes no time to sort.
parts AS MATERIALIZED (
    SELECT
        effective_date,
        FALSE AS is_pending,
        transaction_key >> 10 AS part,
-- include part_of_rows
    FROM dated
    WHERE effective_date = CAST(:on_time_date AS date) AND num_nonnulls(obstacle) < 1
    GROUP BY effective_date, transaction_key >> 10
    UNION ALL
    SELECT
        effective_date,
        effective_date IS NULL OR obstacle IS NOT NULL AS is_pending,
        transaction_key >> 10 AS part,
-- include part_of_rows
    FROM remarkable
    WHERE (effective_date = CAST(:on_time_date AS date) AND obstacle IS NULL) IS NOT TRUE
    GROUP BY effective_date, effective_date IS NULL OR obstacle IS NOT NULL, transaction_key >> 10
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
            itemised.transaction_key,
            COALESCE(destination.currency, '') AS currency,
            COALESCE(itemised.exception, 'cross_currency') AS cause,
            trunc(itemised.posted * itemised.rate) AS difference,
            trunc(itemised.own_hold * itemised.rate) AS inflight_difference
        FROM itemised
        LEFT JOIN answered AS destination ON destination.balance_key = itemised.destination_key
        WHERE itemised.obstacle IS NULL
        UNION ALL
        SELECT
            itemised.transaction_key,
            COALESCE(source.currency, '') AS currency,
            COALESCE(itemised.exception, 'cross_currency') AS cause,
            -trunc(itemised.posted) AS difference,
            -trunc(itemised.own_hold) AS inflight_difference
        FROM itemised
        LEFT JOIN answered AS source ON source.balance_key = itemised.source_key
        WHERE itemised.obstacle IS NULL
        UNION ALL
        SELECT
            itemised.transaction_key,
            COALESCE(destination.currency, source.currency, '') AS currency,
            itemised.obstacle AS cause,
            0 AS difference,
            0 AS inflight_difference
        FROM itemised
        LEFT JOIN answered AS source ON source.balance_key = itemised.source_key
        LEFT JOIN answered AS destination ON destination.balance_key = itemised.destination_key
        WHERE itemised.obstacle IS NOT NULL
        UNION ALL
        SELECT
            transaction_key,
            '' AS currency,
            'gone' AS cause,
            0 AS difference,
            0 AS inflight_difference
        FROM gone_keys
    ) AS every
    GROUP BY transaction_key, currency, cause
),

newly_pending AS MATERIALIZED (  -- what the run stores of that; gone keys are in it
    SELECT
        pending.block,
        pending.keys - COALESCE(carried.keys, int8multirange()) AS keys
    FROM (
        SELECT
            part >> 3 AS block,
            keys
        FROM parts
        WHERE is_pending
        UNION ALL
        SELECT
            block,
            keys
        FROM gone
    ) AS pending
    LEFT JOIN carried ON carried.block = pending.block AND NOT CAST(:is_whole AS boolean)
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
            'counted' AS key_set,
            effective_date,
            part >> 3 AS block,
            keys
        FROM parts
        WHERE NOT is_pending
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
        FROM newly_pending
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
        SELECT DISTINCT
            ends.key_set,
            unnest(ARRAY[lower(ends.keys), upper(ends.keys) - 1]) AS transaction_key
        FROM (
            SELECT
                keys,
                'counted' AS key_set
            FROM parts
            WHERE NOT is_pending
            UNION ALL
            SELECT
                keys,
                'pending' AS key_set
            FROM newly_pending
        ) AS ends
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
),

written_parts AS (  -- of a preparation, for the close that takes the piece over
    INSERT INTO ledger_eod.prepared_parts (
        run_id, piece, effective_date, part, transaction_count, posted_amount, held_amount, digest
    )
    SELECT
        CAST(:run_id AS bigint) AS run_id,
        CAST(:piece AS integer) AS piece,
        effective_date,
        part,
        transaction_count,
        COALESCE(posted_amount, 0) AS posted_amount,
        COALESCE(held_amount, 0) AS held_amount,
        digest
    FROM parts
    WHERE NOT is_pending AND CAST(:rules AS text) IS NOT NULL
)

UPDATE ledger_eod.run_pieces
SET
    done_at = clock_timestamp(),
    fingerprint = fates.fingerprint,
    counted_count = fates.counted_count,
    settled_count = fates.settled_count,
    pending_count = fates.pending_count + fates.gone_count,
    gone_count = fates.gone_count
FROM (
    SELECT
        COALESCE(sum(counting_count) FILTER (WHERE NOT is_pending), 0) AS counted_count,
        COALESCE(sum(transaction_count - counting_count) FILTER (WHERE NOT is_pending), 0) AS settled_count,
        COALESCE(sum(transaction_count) FILTER (WHERE is_pending), 0) AS pending_count,
        (SELECT count(*) FROM gone_keys) AS gone_count,
        (
            SELECT fingerprinted.fingerprint FROM fingerprinted
            WHERE CAST(:rules AS text) IS NOT NULL
        ) AS fingerprint
    FROM parts
) AS fates
WHERE run_pieces.run_id = CAST(:run_id AS bigint) AND run_pieces.piece = CAST(:piece AS integer)
