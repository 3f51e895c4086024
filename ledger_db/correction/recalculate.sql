-- One balance as it is stored and as its postings prove it, at the statement's own instant. No row: no such balance.
-- balance_id: the balance. base_run_id, base_genesis_run_id, base_max_transaction_key, base_seen, base_is_foreign: the
-- newest certified close, the third witness, as for close.older_keys. base_business_date: its date. cluster_id: this
-- cluster. Amounts in minor units. balance_key, currency: as captured, of a balance that no run has captured as it is.
-- unprovable_count: transactions whose postings have no exact amount and that no declared opening balance covers.
-- notification_bytes: the size of what the application's trigger would send.
-- Read-only, one MVCC snapshot. Cost: one scan of the balance's history, by index, and the base's pending keys.
WITH
-- include postings.postings
,

stored AS (
    SELECT
        balances.id AS live_key,
        balances.balance_id,
        balances.currency AS live_currency,
        balances.version,
        balances.balance,
        balances.credit_balance,
        balances.debit_balance,
        balances.inflight_balance,
        balances.inflight_credit_balance,
        balances.inflight_debit_balance,
        COALESCE(captured.balance_key, balances.id) AS balance_key,
        COALESCE(captured.currency, balances.currency) AS currency,
        COALESCE(balances.meta_data ->> 'BLNK_RUN_RECONCILIATION' = 'SOURCE', FALSE) AS is_requested,
        octet_length(CAST(json_build_object('table', 'balances', 'data', row_to_json(balances)) AS text))
            AS notification_bytes
    FROM blnk.balances
    LEFT JOIN ledger_eod.captured_balances AS captured ON captured.balance_id = balances.balance_id
    WHERE balances.balance_id = CAST(:balance_id AS text)
),

opening AS (  -- the newest declaration counts. One of another cluster covers what came here with the ledger.
    SELECT
        opening_balances.credit_balance,
        opening_balances.debit_balance,
        opening_balances.inflight_credit_balance,
        opening_balances.inflight_debit_balance,
        CASE
            WHEN opening_balances.system_identifier
                = (SELECT CAST(control.system_identifier AS text) FROM pg_control_system() AS control)
                THEN opening_balances.cut
        END AS cut
    FROM ledger_eod.opening_balances
    WHERE opening_balances.balance_key = (SELECT stored.balance_key FROM stored)
    ORDER BY opening_balances.opening_balance_id DESC
    LIMIT 1
),

snapshot AS (
    SELECT snapshots.*
    FROM ledger_eod.balance_snapshots AS snapshots
    INNER JOIN stored ON stored.balance_key = snapshots.balance_key
    WHERE snapshots.business_date = CAST(:base_business_date AS date) AND snapshots.kind = 'close'
),

recorded AS NOT MATERIALIZED (  -- the balance's rows that count, at or below the base's highest key
    SELECT
        t.id AS transaction_key,
        t.recorded_xid
    FROM blnk.transactions AS t
    WHERE (t.source = CAST(:balance_id AS text) OR t.destination = CAST(:balance_id AS text))
        AND t.id <= CAST(:base_max_transaction_key AS bigint)
        AND
-- include postings.counts(status: t.status)
),

-- Keys at or below the base's highest that its chain has not counted, as close.older_keys has them: pending ones of all
-- balances, and of this one what was recorded since and, with a base of another cluster, what came here.
older AS MATERIALIZED (
    SELECT
        candidates.block,
        range_agg(candidates.span) AS keys
    FROM (
        SELECT
            pending.block,
            unnest(pending.keys) AS span
        FROM (
-- include close.pending_keys(base: base)
        ) AS pending
        UNION ALL
        SELECT
            recorded.transaction_key >> 13 AS block,
            int8range(recorded.transaction_key, recorded.transaction_key, '[]') AS span
        FROM recorded
        WHERE
-- include close.since_cut(xid: recorded.recorded_xid; cut: CAST(:base_seen AS pg_snapshot))
            AND NOT
-- include close.is_counted(key: recorded.transaction_key; base: base)
        UNION ALL
        SELECT
            recorded.transaction_key >> 13 AS block,
            int8range(recorded.transaction_key, recorded.transaction_key, '[]') AS span
        FROM recorded
        WHERE CAST(:base_is_foreign AS boolean)
            AND
-- include close.in_cut(
--     key: recorded.transaction_key
--     xid: recorded.recorded_xid
--     cut: CAST(:base_seen AS pg_snapshot)
-- )
            AND NOT
-- include close.is_counted(key: recorded.transaction_key; base: base)
    ) AS candidates
    GROUP BY candidates.block
),

waiting AS MATERIALIZED (  -- counted, and their holds are not released yet
-- include close.keys_by_block(run_id: CAST(:base_run_id AS bigint); key_set: waiting)
),

-- One scan for each side: summing a union of both costs 50 % more.
every_credit AS (
    SELECT
        COALESCE(sum(own.credit), 0) AS credit,
        COALESCE(sum(own.inflight_credit), 0) AS inflight_credit,
        COALESCE(sum(own.credit) FILTER (WHERE own.is_since), 0) AS since_credit,
        COALESCE(sum(own.inflight_credit) FILTER (WHERE own.is_since OR own.is_waiting), 0) AS since_inflight_credit,
        count(*) FILTER (
            WHERE own.exception IS NOT NULL
            AND (
                EXISTS (SELECT FROM opening)
                AND
-- include close.in_cut(
--     key: own.transaction_key
--     xid: own.recorded_xid
--     cut: (SELECT opening.cut FROM opening)
-- )
            ) IS NOT TRUE
        ) AS unprovable_count
    FROM (
        SELECT
            credits.transaction_key,
            credits.recorded_xid,
            credits.exception,
            credits.credit,
            credits.inflight_credit,
-- include is_since(side: credits)
                AS is_since,
            credits.is_release
            AND COALESCE(waiting.keys @> CAST(credits.transaction_key AS bigint), FALSE) AS is_waiting
        FROM credits
        LEFT JOIN older ON older.block = credits.transaction_key >> 13
        LEFT JOIN waiting ON waiting.block = credits.transaction_key >> 13
        WHERE credits.balance_id = CAST(:balance_id AS text)
    ) AS own
),

every_debit AS (
    SELECT
        COALESCE(sum(own.debit), 0) AS debit,
        COALESCE(sum(own.inflight_debit), 0) AS inflight_debit,
        COALESCE(sum(own.debit) FILTER (WHERE own.is_since), 0) AS since_debit,
        COALESCE(sum(own.inflight_debit) FILTER (WHERE own.is_since OR own.is_waiting), 0) AS since_inflight_debit,
        count(*) FILTER (
            WHERE own.exception IS NOT NULL
            AND (
                EXISTS (SELECT FROM opening)
                AND
-- include close.in_cut(
--     key: own.transaction_key
--     xid: own.recorded_xid
--     cut: (SELECT opening.cut FROM opening)
-- )
            ) IS NOT TRUE
        ) AS unprovable_count
    FROM (
        SELECT
            debits.transaction_key,
            debits.recorded_xid,
            debits.exception,
            debits.debit,
            debits.inflight_debit,
-- include is_since(side: debits)
                AS is_since,
            debits.is_release
            AND COALESCE(waiting.keys @> CAST(debits.transaction_key AS bigint), FALSE) AS is_waiting
        FROM debits
        LEFT JOIN older ON older.block = debits.transaction_key >> 13
        LEFT JOIN waiting ON waiting.block = debits.transaction_key >> 13
        WHERE debits.balance_id = CAST(:balance_id AS text)
    ) AS own
),

opened_with AS (
    SELECT
        COALESCE(max(credit_balance), 0) AS credit,
        COALESCE(max(debit_balance), 0) AS debit,
        COALESCE(max(inflight_credit_balance), 0) AS inflight_credit,
        COALESCE(max(inflight_debit_balance), 0) AS inflight_debit
    FROM opening
),

sums AS (
    SELECT
        every_credit.credit - every_credit.since_credit AS based_credit_balance,
        every_debit.debit - every_debit.since_debit AS based_debit_balance,
        every_credit.inflight_credit - every_credit.since_inflight_credit AS based_inflight_credit_balance,
        every_debit.inflight_debit - every_debit.since_inflight_debit AS based_inflight_debit_balance,
        every_credit.since_credit + opened_with.credit AS since_credit_balance,
        every_debit.since_debit + opened_with.debit AS since_debit_balance,
        every_credit.since_inflight_credit + opened_with.inflight_credit AS since_inflight_credit_balance,
        every_debit.since_inflight_debit + opened_with.inflight_debit AS since_inflight_debit_balance,
        every_credit.unprovable_count + every_debit.unprovable_count AS unprovable_count
    FROM every_credit
    CROSS JOIN every_debit
    CROSS JOIN opened_with
)

SELECT
    sums.*,
    stored.balance_key,
    stored.balance_id,
    stored.currency,
    stored.live_key,
    stored.live_currency,
    stored.version,
    stored.is_requested,
    stored.notification_bytes,
    stored.balance AS stored_balance,
    stored.credit_balance AS stored_credit_balance,
    stored.debit_balance AS stored_debit_balance,
    stored.inflight_balance AS stored_inflight_balance,
    stored.inflight_credit_balance AS stored_inflight_credit_balance,
    stored.inflight_debit_balance AS stored_inflight_debit_balance,
    CAST(pg_current_snapshot() AS text) AS cut,
    sums.based_credit_balance + sums.since_credit_balance AS proven_credit_balance,
    sums.based_debit_balance + sums.since_debit_balance AS proven_debit_balance,
    sums.based_inflight_credit_balance + sums.since_inflight_credit_balance AS proven_inflight_credit_balance,
    sums.based_inflight_debit_balance + sums.since_inflight_debit_balance AS proven_inflight_debit_balance,
    COALESCE(snapshot.credit_balance, 0) AS snapshot_credit_balance,
    COALESCE(snapshot.debit_balance, 0) AS snapshot_debit_balance,
    COALESCE(snapshot.inflight_credit_balance, 0) AS snapshot_inflight_credit_balance,
    COALESCE(snapshot.inflight_debit_balance, 0) AS snapshot_inflight_debit_balance,
    statement_timestamp() AS executed_at
FROM stored
CROSS JOIN sums
LEFT JOIN snapshot ON TRUE
