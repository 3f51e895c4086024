-- One balance at one instant, starting from the anchor's snapshot: the snapshot, plus what later runs counted for dates
-- up to the anchor's, plus the rows that no known run counted for such a date. Minor units. Always one row. Read-only.
-- balance_id, balance_key: the balance. instant: exclusive.
-- anchor_run_id, anchor_date, anchor_closes_at: the newest certified close that ends at or before the instant.
-- raw_since: its closes_at, or '-infinity' to look at every row of the balance: the last close is of another cluster.
-- is_known_now, genesis_run_id, known_run_id, interim_run_id, pending_run_id, pending_from_run_id: what is known, as in
-- known_keys.
-- known_max_transaction_key: no known run has a key above it.
-- recorded_since: what was recorded after this cut is known too; NULL to leave it out. cluster_id: this cluster.
-- Cost: the balance's rows since the anchor, by index. By primary key all rows that are pending, and the anchor's that
-- release a hold which it did not count.
WITH
-- include postings.postings
,

-- include known_keys
,

late_activity AS MATERIALIZED (
    SELECT
        activity.run_id,
        activity.piece,
        activity.effective_date,
        activity.credit_balance,
        activity.debit_balance,
        activity.inflight_credit_balance,
        activity.inflight_debit_balance
    FROM ledger_eod.activity
    INNER JOIN known_runs ON known_runs.run_id = activity.run_id
    WHERE activity.is_late
        AND activity.balance_key = CAST(:balance_key AS bigint)
        AND activity.effective_date <= CAST(:anchor_date AS date)
        AND activity.run_id > CAST(:anchor_run_id AS bigint)
),

-- Rows in these figures that release a hold, and may do so after the anchor's date. A late row may have been counted
-- and have released its hold in one run; then no waiting set has it.
settling_keys AS (
    SELECT
        waiting.block,
        waiting.keys AS spans
    FROM ledger_eod.run_keys AS waiting
    WHERE waiting.run_id = CAST(:anchor_run_id AS bigint) AND waiting.key_set = 'waiting'
    UNION ALL
    SELECT
        settling.block,
        settling.keys * counted.keys AS spans
    FROM late_activity
    INNER JOIN ledger_eod.run_keys AS settling
        ON settling.run_id = late_activity.run_id
            AND settling.key_set = 'settling'
            AND settling.piece = late_activity.piece
    INNER JOIN ledger_eod.run_keys AS counted
        ON counted.run_id = late_activity.run_id
            AND counted.key_set = 'counted'
            AND counted.piece = late_activity.piece
            AND counted.effective_date = late_activity.effective_date
            AND counted.block = settling.block
),

unreleased_keys AS (
    SELECT
        settling_keys.spans - COALESCE(
            (
                SELECT range_agg(released.span)
                FROM (
                    SELECT
                        released_keys.block,
                        released_keys.effective_date,
                        unnest(released_keys.spans) AS span
                    FROM released_keys
                ) AS released
                WHERE released.block = settling_keys.block
                    AND released.effective_date <= CAST(:anchor_date AS date)
            ),
            int8multirange()
        ) AS spans
    FROM settling_keys
),

own_history AS NOT MATERIALIZED (
-- include own_history(side: source)
    UNION ALL
-- include own_history(side: destination)
),

-- How to find the balance's rows among those that are pending: among all of these, or among its own where it has less
-- than half as many. Those of the run whose set is whole are read too. A run that was migrated has no pieces: among its
-- own.
search AS MATERIALIZED (
    SELECT own.row_count < pending.row_count / 2 AS is_among_its_own
    FROM (
        SELECT COALESCE(CAST(sum(run_pieces.pending_count) AS bigint), 9223372036854775807) AS row_count
        FROM ledger_eod.run_pieces
        WHERE run_pieces.run_id IN (CAST(:pending_from_run_id AS bigint), CAST(:pending_run_id AS bigint))
    ) AS pending
    CROSS JOIN
        LATERAL (
            SELECT count(*) AS row_count
            FROM (
                SELECT 1 AS one
                FROM own_history
                ORDER BY one
                LIMIT pending.row_count / 2
            ) AS counted
        ) AS own
    WHERE CAST(:pending_run_id AS bigint) IS NOT NULL
),

-- The conditions on keys up to the highest one are always true. Without them the planner expects so many keys that
-- a plan made without the values seems dear, and each look-up is planned again.
named_keys AS (
    SELECT range_agg(named.span) AS spans
    FROM (
        SELECT
            unnest(
                pending_keys.spans - COALESCE(
                    (
                        SELECT range_agg(counted.span)
                        FROM (
                            SELECT unnest(run_keys.keys) AS span
                            FROM ledger_eod.run_keys
                            INNER JOIN known_runs ON known_runs.run_id = run_keys.run_id
                            WHERE run_keys.block = pending_keys.block
                                AND run_keys.key_set = 'counted'
                                AND run_keys.run_id > CAST(:pending_from_run_id AS bigint)
                                AND run_keys.run_id <= CAST(:pending_run_id AS bigint)
                        ) AS counted
                    ),
                    int8multirange()
                )
            ) AS span
        FROM pending_keys
        WHERE pending_keys.spans && int8range(NULL, CAST(:known_max_transaction_key AS bigint), '[]')
            AND NOT (SELECT search.is_among_its_own FROM search)
        UNION ALL
        SELECT unnest(unreleased_keys.spans) AS span
        FROM unreleased_keys
    ) AS named
),

-- Rows that may count although they are effective before the anchor closed.
older_keys AS (
    SELECT generate_series(lower(named.span), upper(named.span) - 1) AS transaction_key
    FROM (
        SELECT unnest(named_keys.spans) AS span
        FROM named_keys
    ) AS named
    WHERE named.span && int8range(NULL, CAST(:known_max_transaction_key AS bigint), '[]')
    UNION ALL
    SELECT own_history.transaction_key
    FROM own_history
    INNER JOIN pending_keys
        ON pending_keys.block = own_history.transaction_key >> 13
            AND pending_keys.spans @> CAST(own_history.transaction_key AS bigint)
    WHERE (SELECT search.is_among_its_own FROM search)
    UNION ALL
-- include recorded_since(side: source)
    UNION ALL
-- include recorded_since(side: destination)
),

raw_rows AS (
    SELECT
        transaction_key,
        effective_at,
        held_at,
        is_release,
        credit,
        debit,
        inflight_credit,
        inflight_debit
    FROM postings
    WHERE balance_id = CAST(:balance_id AS text)
        AND effective_at >= CAST(:raw_since AS timestamptz)
        AND effective_at < CAST(:instant AS timestamptz)
    UNION ALL
    SELECT
        transaction_key,
        effective_at,
        held_at,
        is_release,
        credit,
        debit,
        inflight_credit,
        inflight_debit
    FROM postings
    WHERE transaction_key = ANY(ARRAY(SELECT older_keys.transaction_key FROM older_keys))
        -- With IS TRUE the balance's indexes have no condition to use: they would read its history.
        AND (balance_id = CAST(:balance_id AS text)) IS TRUE
        AND effective_at < CAST(:raw_since AS timestamptz)
),

-- What of them these figures do not have yet. MATERIALIZED, so that each row is looked up once.
judged_rows AS MATERIALIZED (
    SELECT
        raw_rows.is_release,
        raw_rows.credit,
        raw_rows.debit,
        raw_rows.inflight_credit,
        raw_rows.inflight_debit,
        (
            raw_rows.transaction_key > CAST(:known_max_transaction_key AS bigint)
            OR NOT EXISTS (
                SELECT
                FROM counted_keys
                WHERE counted_keys.block = raw_rows.transaction_key >> 13
                    AND counted_keys.spans @> CAST(raw_rows.transaction_key AS bigint)
                    AND (
                        counted_keys.effective_date <= CAST(:anchor_date AS date)
                        -- Counted for a later date, and dated back since: an edit moves nothing that was counted.
                        OR raw_rows.effective_at < CAST(:anchor_closes_at AS timestamptz)
                    )
            )
        )
        AND
-- include is_known(key: raw_rows.transaction_key)
            AS is_posted,
        raw_rows.is_release
        AND raw_rows.held_at < CAST(:instant AS timestamptz)
        -- A row that released no hold when it was counted releases none later, whatever parent it is given.
        AND (
            raw_rows.transaction_key > CAST(:known_max_transaction_key AS bigint)
            OR NOT EXISTS (
                SELECT
                FROM counted_keys
                WHERE counted_keys.block = raw_rows.transaction_key >> 13
                    AND counted_keys.spans @> CAST(raw_rows.transaction_key AS bigint)
            )
            OR EXISTS (
                SELECT
                FROM ledger_eod.run_keys AS settling
                INNER JOIN known_runs ON known_runs.run_id = settling.run_id
                WHERE settling.block = raw_rows.transaction_key >> 13
                    AND settling.key_set = 'settling'
                    AND settling.keys @> CAST(raw_rows.transaction_key AS bigint)
            )
        )
        AND (
            raw_rows.transaction_key > CAST(:known_max_transaction_key AS bigint)
            OR NOT EXISTS (
                SELECT
                FROM released_keys
                WHERE released_keys.block = raw_rows.transaction_key >> 13
                    AND released_keys.spans @> CAST(raw_rows.transaction_key AS bigint)
                    AND (
                        released_keys.effective_date <= CAST(:anchor_date AS date)
                        OR raw_rows.held_at < CAST(:anchor_closes_at AS timestamptz)
                    )
            )
        )
        AND
-- include is_known(key: raw_rows.transaction_key)
        AND
-- include is_hold_known(key: raw_rows.transaction_key)
            AS is_released
    FROM raw_rows
),

parts AS (
    SELECT
        credit_balance,
        debit_balance,
        inflight_credit_balance,
        inflight_debit_balance
    FROM ledger_eod.balance_snapshots
    WHERE business_date = CAST(:anchor_date AS date)
        AND kind = 'close'
        AND balance_key = CAST(:balance_key AS bigint)
    UNION ALL
    SELECT
        credit_balance,
        debit_balance,
        inflight_credit_balance,
        inflight_debit_balance
    FROM late_activity
    UNION ALL
    SELECT
        credit,
        debit,
        CASE WHEN is_release THEN 0 ELSE inflight_credit END AS inflight_credit,
        CASE WHEN is_release THEN 0 ELSE inflight_debit END AS inflight_debit
    FROM judged_rows
    WHERE is_posted
    UNION ALL
    SELECT
        0 AS credit,
        0 AS debit,
        inflight_credit,
        inflight_debit
    FROM judged_rows
    WHERE is_released
)

SELECT
    COALESCE(sum(credit_balance), 0) AS credit_balance,
    COALESCE(sum(debit_balance), 0) AS debit_balance,
    COALESCE(sum(inflight_credit_balance), 0) AS inflight_credit_balance,
    COALESCE(sum(inflight_debit_balance), 0) AS inflight_debit_balance
FROM parts
