-- One balance as it is stored and as its postings say, at the statement's own instant. No row: there is no such balance.
-- balance_id: the balance. base_closes_at, base_cut, base_date: the newest certified close, which is the third witness.
-- Minor units. unprovable_count: transactions that no posting can tell exactly, and no declared opening balance covers.
-- notification_bytes: what the application's trigger would send of the row as it stands. Read-only, one MVCC snapshot.
-- Cost: one scan of the balance's history, by index.
WITH
-- include postings
,

stored AS (
    SELECT
        id AS balance_key,
        balance_id,
        balances.currency,
        version,
        balance,
        credit_balance,
        debit_balance,
        inflight_balance,
        inflight_credit_balance,
        inflight_debit_balance,
        COALESCE(meta_data ->> 'BLNK_RUN_RECONCILIATION' = 'SOURCE', FALSE) AS is_requested,
        octet_length(json_build_object('table', 'balances', 'data', row_to_json(balances))::text)
            AS notification_bytes
    FROM blnk.balances
    WHERE balance_id = CAST(:balance_id AS text)
),

opening AS (  -- the newest declaration of a balance counts; a cut of another cluster says nothing here
    SELECT
        credit_balance,
        debit_balance,
        inflight_credit_balance,
        inflight_debit_balance,
        CASE WHEN system_identifier = (SELECT system_identifier::text FROM pg_control_system()) THEN cut END AS cut
    FROM ledger_eod.opening_balances
    WHERE balance_key = (SELECT balance_key FROM stored)
    ORDER BY opening_balance_id DESC
    LIMIT 1
),

snapshot AS (
    SELECT snapshots.*
    FROM ledger_eod.balance_snapshots AS snapshots
    JOIN stored ON stored.balance_key = snapshots.balance_key
    WHERE business_date = CAST(:base_date AS date) AND kind = 'close'
),

halves AS (
    SELECT
        is_based,
        sum(credit) AS credit,
        sum(debit) AS debit,
        sum(inflight_credit) AS inflight_credit,
        sum(inflight_debit) AS inflight_debit,
        count(*) FILTER (
            WHERE exception IS NOT NULL
                AND NOT COALESCE(
                    (
                        SELECT
                            opening.cut IS NOT NULL
                            AND (recorded_xid IS NULL OR pg_visible_in_snapshot(recorded_xid, opening.cut))
                        FROM opening
                    ),
                    FALSE
                )
        ) AS unprovable_count
    FROM (
        SELECT
            postings.*,
            effective_at < CAST(:base_closes_at AS timestamptz)
                AND (recorded_xid IS NULL OR pg_visible_in_snapshot(recorded_xid, CAST(:base_cut AS pg_snapshot)))
                AS is_based
        FROM postings
        WHERE balance_id = CAST(:balance_id AS text)
    ) AS split
    GROUP BY is_based
),

sums AS (
    SELECT
        COALESCE(sum(credit) FILTER (WHERE is_based), 0) AS based_credit_balance,
        COALESCE(sum(debit) FILTER (WHERE is_based), 0) AS based_debit_balance,
        COALESCE(sum(inflight_credit) FILTER (WHERE is_based), 0) AS based_inflight_credit_balance,
        COALESCE(sum(inflight_debit) FILTER (WHERE is_based), 0) AS based_inflight_debit_balance,
        COALESCE(sum(credit) FILTER (WHERE NOT is_based), 0)
            + COALESCE((SELECT credit_balance FROM opening), 0) AS since_credit_balance,
        COALESCE(sum(debit) FILTER (WHERE NOT is_based), 0)
            + COALESCE((SELECT debit_balance FROM opening), 0) AS since_debit_balance,
        COALESCE(sum(inflight_credit) FILTER (WHERE NOT is_based), 0)
            + COALESCE((SELECT inflight_credit_balance FROM opening), 0) AS since_inflight_credit_balance,
        COALESCE(sum(inflight_debit) FILTER (WHERE NOT is_based), 0)
            + COALESCE((SELECT inflight_debit_balance FROM opening), 0) AS since_inflight_debit_balance,
        COALESCE(sum(unprovable_count), 0) AS unprovable_count
    FROM halves
)

SELECT
    stored.balance_key,
    stored.balance_id,
    stored.currency,
    stored.version,
    stored.is_requested,
    stored.notification_bytes,
    stored.balance AS stored_balance,
    stored.credit_balance AS stored_credit_balance,
    stored.debit_balance AS stored_debit_balance,
    stored.inflight_balance AS stored_inflight_balance,
    stored.inflight_credit_balance AS stored_inflight_credit_balance,
    stored.inflight_debit_balance AS stored_inflight_debit_balance,
    sums.*,
    sums.based_credit_balance + sums.since_credit_balance AS proven_credit_balance,
    sums.based_debit_balance + sums.since_debit_balance AS proven_debit_balance,
    sums.based_inflight_credit_balance + sums.since_inflight_credit_balance AS proven_inflight_credit_balance,
    sums.based_inflight_debit_balance + sums.since_inflight_debit_balance AS proven_inflight_debit_balance,
    COALESCE(snapshot.credit_balance, 0) AS snapshot_credit_balance,
    COALESCE(snapshot.debit_balance, 0) AS snapshot_debit_balance,
    COALESCE(snapshot.inflight_credit_balance, 0) AS snapshot_inflight_credit_balance,
    COALESCE(snapshot.inflight_debit_balance, 0) AS snapshot_inflight_debit_balance,
    pg_current_snapshot()::text AS cut,
    statement_timestamp() AS executed_at
FROM stored
CROSS JOIN sums
LEFT JOIN snapshot ON TRUE
