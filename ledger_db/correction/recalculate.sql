-- One balance as it is stored and as its postings say, at the statement's own instant. No row: there is no such balance.
-- balance_id: the balance. base_closes_at, base_cut, base_date: the newest certified close, which is the third witness.
-- Minor units. unprovable_count: transactions that no posting can tell exactly, and no declared opening balance covers.
-- notification_bytes: what the application's trigger would send of the row as it stands. Read-only, one MVCC snapshot.
-- Cost: one scan of the balance's history, by index.
WITH
-- include postings.postings
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

-- each side by itself: summing a union of both costs 50 % more
every_credit AS (
    SELECT
        COALESCE(sum(credit), 0) AS credit,
        COALESCE(sum(inflight_credit), 0) AS inflight_credit,
        count(*) FILTER (
            WHERE exception IS NOT NULL
                AND (
                    (SELECT cut FROM opening) IS NULL
                    OR NOT
-- include close.in_cut(xid: recorded_xid; cut: (SELECT cut FROM opening))
                )
        ) AS unprovable_count
    FROM credits
    WHERE balance_id = CAST(:balance_id AS text)
),

every_debit AS (
    SELECT
        COALESCE(sum(debit), 0) AS debit,
        COALESCE(sum(inflight_debit), 0) AS inflight_debit,
        count(*) FILTER (
            WHERE exception IS NOT NULL
                AND (
                    (SELECT cut FROM opening) IS NULL
                    OR NOT
-- include close.in_cut(xid: recorded_xid; cut: (SELECT cut FROM opening))
                )
        ) AS unprovable_count
    FROM debits
    WHERE balance_id = CAST(:balance_id AS text)
),

since AS (  -- what is not in the close's cut, by index; the rest of the sums is
    SELECT
        COALESCE(sum(credit), 0) AS credit,
        COALESCE(sum(debit), 0) AS debit,
        COALESCE(sum(inflight_credit), 0) AS inflight_credit,
        COALESCE(sum(inflight_debit), 0) AS inflight_debit
    FROM (
        SELECT credit, debit, inflight_credit, inflight_debit
        FROM postings
        WHERE balance_id = CAST(:balance_id AS text)
            AND CAST(:base_cut AS pg_snapshot) IS NOT NULL
            AND effective_at >= CAST(:base_closes_at AS timestamptz)
        UNION ALL
        SELECT credit, debit, inflight_credit, inflight_debit
        FROM postings
        WHERE balance_id = CAST(:balance_id AS text)
            -- IS TRUE and transaction_key, of which any value passes: by recorded_xid, as in balance_at.sql
            AND (effective_at < CAST(:base_closes_at AS timestamptz)) IS TRUE
            AND
-- include close.after_cut(xid: recorded_xid; cut: CAST(:base_cut AS pg_snapshot))
            AND transaction_key >= '-9223372036854775808'::bigint
    ) AS fresh
),

opened_with AS (
    SELECT
        COALESCE(max(credit_balance), 0) AS credit,
        COALESCE(max(debit_balance), 0) AS debit,
        COALESCE(max(inflight_credit_balance), 0) AS inflight_credit,
        COALESCE(max(inflight_debit_balance), 0) AS inflight_debit
    FROM opening
),

sums AS (  -- without a close everything is since
    SELECT
        CASE WHEN based THEN every_credit.credit - since.credit ELSE 0 END AS based_credit_balance,
        CASE WHEN based THEN every_debit.debit - since.debit ELSE 0 END AS based_debit_balance,
        CASE WHEN based THEN every_credit.inflight_credit - since.inflight_credit ELSE 0 END
            AS based_inflight_credit_balance,
        CASE WHEN based THEN every_debit.inflight_debit - since.inflight_debit ELSE 0 END
            AS based_inflight_debit_balance,
        CASE WHEN based THEN since.credit ELSE every_credit.credit END + opened_with.credit AS since_credit_balance,
        CASE WHEN based THEN since.debit ELSE every_debit.debit END + opened_with.debit AS since_debit_balance,
        CASE WHEN based THEN since.inflight_credit ELSE every_credit.inflight_credit END + opened_with.inflight_credit
            AS since_inflight_credit_balance,
        CASE WHEN based THEN since.inflight_debit ELSE every_debit.inflight_debit END + opened_with.inflight_debit
            AS since_inflight_debit_balance,
        every_credit.unprovable_count + every_debit.unprovable_count AS unprovable_count
    FROM every_credit
    CROSS JOIN every_debit
    CROSS JOIN since
    CROSS JOIN opened_with
    CROSS JOIN (SELECT CAST(:base_cut AS pg_snapshot) IS NOT NULL AS based) AS knowledge
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
