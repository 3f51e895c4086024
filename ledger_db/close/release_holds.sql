-- Release the holds of one piece of a run's children: of those whose hold is counted, by this run or before. Writes
-- their activity, exceptions, and the keys released and still waiting. Marks the piece as done.
-- run_id, piece, business_date, closes_at, genesis_run_id, time_zone, cut_off: the run and its piece.
-- first_key, last_key: the piece's range, whole blocks. base_run_id, base_genesis_run_id, base_business_date,
-- base_closes_at: the base, NULL and '-infinity' without one.
-- Amounts in minor units, negative: they leave a hold. Locks no ledger row. Cost: the piece's children, by primary key.
WITH
-- include postings.postings
,

children AS MATERIALIZED (
    SELECT
        run_keys.block,
        unnest(run_keys.keys) AS span
    FROM ledger_eod.run_keys
    WHERE run_keys.block BETWEEN CAST(:first_key AS bigint) >> 13 AND CAST(:last_key AS bigint) >> 13
        AND (
            (run_keys.run_id = CAST(:run_id AS bigint) AND run_keys.key_set = 'settling')
            OR (run_keys.run_id = CAST(:base_run_id AS bigint) AND run_keys.key_set = 'waiting')
        )
),

settling AS MATERIALIZED (
    SELECT present.*
    FROM children
    CROSS JOIN
        LATERAL (  -- ORDER BY, so that each span stays a look-up: as a join it may read the whole ledger
            SELECT
                provable.transaction_key,
                provable.source,
                provable.destination,
                provable.held_at,
                provable.held,
                provable.exception,
                trunc(provable.held * provable.rate) AS held_at_rate,
                (
                    SELECT parent.id
                    FROM blnk.transactions AS parent
                    WHERE parent.transaction_id = provable.parent_transaction
                ) AS parent_key
            FROM provable_transactions AS provable
            WHERE provable.transaction_key >= lower(children.span)
                AND provable.transaction_key < upper(children.span)
                AND provable.is_release
            ORDER BY provable.transaction_key
        ) AS present
),

released AS MATERIALIZED (
    SELECT
        settling.transaction_key,
        source.balance_key AS source_key,
        source.currency AS source_currency,
        destination.balance_key AS destination_key,
        destination.currency AS destination_currency,
        settling.held,
        settling.exception,
        settling.held_at_rate,
        CASE
            WHEN settling.held_at >= CAST(:base_closes_at AS timestamptz) THEN CAST(:on_time_date AS date)
            ELSE
-- include business_date(instant: settling.held_at)
        END AS effective_date
    FROM settling
    INNER JOIN ledger_eod.captured_balances AS source ON source.balance_id = settling.source
    INNER JOIN ledger_eod.captured_balances AS destination ON destination.balance_id = settling.destination
    WHERE
        EXISTS (
            SELECT
            FROM ledger_eod.run_keys AS own
            WHERE own.block = settling.parent_key >> 13
                AND own.key_set = 'counted'
                AND own.run_id = CAST(:run_id AS bigint)
                AND own.keys @> CAST(settling.parent_key AS bigint)
        )
        OR
-- include is_counted(key: settling.parent_key; base: base)
),

written_activity AS (
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
        0 AS posting_count,
        0 AS credit_balance,
        0 AS debit_balance,
        sum(inflight_credit) AS inflight_credit_balance,
        sum(inflight_debit) AS inflight_debit_balance,
        max(transaction_key) AS last_transaction_key
    FROM (
        SELECT
            destination_key AS balance_key,
            effective_date,
            transaction_key,
            held_at_rate AS inflight_credit,
            CAST(0 AS numeric) AS inflight_debit
        FROM released
        UNION ALL
        SELECT
            source_key AS balance_key,
            effective_date,
            transaction_key,
            CAST(0 AS numeric) AS inflight_credit,
            held AS inflight_debit
        FROM released
    ) AS sides
    GROUP BY balance_key, effective_date
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
        0 AS difference,
        sum(inflight_difference) AS inflight_difference
    FROM (
        SELECT
            transaction_key,
            destination_currency AS currency,
            COALESCE(exception, 'cross_currency') AS cause,
            held_at_rate AS inflight_difference
        FROM released
        WHERE source_currency <> destination_currency OR exception IS NOT NULL
        UNION ALL
        SELECT
            transaction_key,
            source_currency AS currency,
            COALESCE(exception, 'cross_currency') AS cause,
            -held AS inflight_difference
        FROM released
        WHERE source_currency <> destination_currency OR exception IS NOT NULL
    ) AS itemised
    GROUP BY transaction_key, currency, cause
),

let_go AS MATERIALIZED (
    SELECT
        effective_date,
        transaction_key >> 13 AS block,
        range_agg(int8range(transaction_key, transaction_key, '[]')) AS keys
    FROM released
    GROUP BY effective_date, transaction_key >> 13
),

waiting AS (
    SELECT
        wanted.block,
        wanted.keys - COALESCE(found.keys, int8multirange()) AS keys
    FROM (
        SELECT
            block,
            range_agg(span) AS keys
        FROM children
        GROUP BY block
    ) AS wanted
    LEFT JOIN (
        SELECT
            block,
            range_agg(span) AS keys
        FROM let_go
        CROSS JOIN LATERAL unnest(keys) AS span
        GROUP BY block
    ) AS found ON found.block = wanted.block
),

written_keys AS (
    INSERT INTO ledger_eod.run_keys (run_id, key_set, piece, effective_date, block, keys)
    SELECT
        CAST(:run_id AS bigint) AS run_id,
        CAST('released' AS ledger_eod.key_set) AS key_set,
        CAST(:piece AS integer) AS piece,
        effective_date,
        block,
        keys
    FROM let_go
    UNION ALL
    SELECT
        CAST(:run_id AS bigint) AS run_id,
        CAST('waiting' AS ledger_eod.key_set) AS key_set,
        CAST(:piece AS integer) AS piece,
        CAST(:business_date AS date) AS effective_date,
        block,
        keys
    FROM waiting
    WHERE NOT isempty(keys)
)

UPDATE ledger_eod.run_pieces
SET
    done_at = clock_timestamp(),
    counted_count = (SELECT count(*) FROM released)
WHERE run_pieces.run_id = CAST(:run_id AS bigint) AND run_pieces.piece = CAST(:piece AS integer)
