-- One balance as it is stored and as its postings prove it, at the statement's own instant. No row: no such balance.
-- balance_id: the balance. base_closes_at, base_cut, base_date: the newest certified close, the third witness; NULL
-- without one. Amounts in minor units. unprovable_count: transactions whose postings have no exact amount and that no
-- declared opening balance covers. notification_bytes: the size of what the application's trigger would send.
-- Read-only, one MVCC snapshot. Cost: one scan of the balance's history, by index.
WITH
-- include postings.postings
,

stored AS (
    SELECT
        balances.id AS balance_key,
        balances.balance_id,
        balances.currency,
        balances.version,
        balances.balance,
        balances.credit_balance,
        balances.debit_balance,
        balances.inflight_balance,
        balances.inflight_credit_balance,
        balances.inflight_debit_balance,
        COALESCE(balances.meta_data ->> 'BLNK_RUN_RECONCILIATION' = 'SOURCE', FALSE) AS is_requested,
        octet_length(CAST(json_build_object('table', 'balances', 'data', row_to_json(balances)) AS text))
            AS notification_bytes
    FROM blnk.balances
    WHERE balances.balance_id = CAST(:balance_id AS text)
),

opening AS (  -- the newest declaration of a balance counts; a cut of another cluster is unknown here
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
    WHERE snapshots.business_date = CAST(:base_date AS date) AND snapshots.kind = 'close'
),

-- Each side separately: summing a union of both costs 50 % more.
every_credit AS (
    SELECT
        COALESCE(sum(credit), 0) AS credit,
        COALESCE(sum(inflight_credit), 0) AS inflight_credit,
        count(*) FILTER (
            WHERE exception IS NOT NULL
            AND (
                (SELECT opening.cut FROM opening) IS NULL
                OR NOT
-- include close.in_cut(xid: recorded_xid; cut: (SELECT opening.cut FROM opening))
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
                (SELECT opening.cut FROM opening) IS NULL
                OR NOT
-- include close.in_cut(xid: recorded_xid; cut: (SELECT opening.cut FROM opening))
            )
        ) AS unprovable_count
    FROM debits
    WHERE balance_id = CAST(:balance_id AS text)
),

since AS (  -- what is not in the close's cut, by index; the rest of the sums is in it
    SELECT
        COALESCE(sum(credit), 0) AS credit,
        COALESCE(sum(debit), 0) AS debit,
        COALESCE(sum(inflight_credit), 0) AS inflight_credit,
        COALESCE(sum(inflight_debit), 0) AS inflight_debit
    FROM (
        SELECT
            credit,
            debit,
            inflight_credit,
            inflight_debit
        FROM postings
        WHERE balance_id = CAST(:balance_id AS text)
            AND CAST(:base_cut AS pg_snapshot) IS NOT NULL
            AND effective_at >= CAST(:base_closes_at AS timestamptz)
        UNION ALL
        SELECT
            credit,
            debit,
            inflight_credit,
            inflight_debit
        FROM postings
        WHERE balance_id = CAST(:balance_id AS text)
            -- IS TRUE and the condition on transaction_key make the plan use the index on recorded_xid.
            -- balance_at.sql explains both; every row satisfies the latter.
            AND (effective_at < CAST(:base_closes_at AS timestamptz)) IS TRUE
            AND
-- include close.after_cut(xid: recorded_xid; cut: CAST(:base_cut AS pg_snapshot))
            AND transaction_key >= CAST('-9223372036854775808' AS bigint)
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

sums AS (  -- without a close all postings count as since the close
    SELECT
        CASE WHEN knowledge.is_based THEN every_credit.credit - since.credit ELSE 0 END AS based_credit_balance,
        CASE WHEN knowledge.is_based THEN every_debit.debit - since.debit ELSE 0 END AS based_debit_balance,
        CASE WHEN knowledge.is_based THEN every_credit.inflight_credit - since.inflight_credit ELSE 0 END
            AS based_inflight_credit_balance,
        CASE WHEN knowledge.is_based THEN every_debit.inflight_debit - since.inflight_debit ELSE 0 END
            AS based_inflight_debit_balance,
        CASE WHEN knowledge.is_based THEN since.credit ELSE every_credit.credit END
        + opened_with.credit AS since_credit_balance,
        CASE WHEN knowledge.is_based THEN since.debit ELSE every_debit.debit END
        + opened_with.debit AS since_debit_balance,
        CASE WHEN knowledge.is_based THEN since.inflight_credit ELSE every_credit.inflight_credit END
        + opened_with.inflight_credit AS since_inflight_credit_balance,
        CASE WHEN knowledge.is_based THEN since.inflight_debit ELSE every_debit.inflight_debit END
        + opened_with.inflight_debit AS since_inflight_debit_balance,
        every_credit.unprovable_count + every_debit.unprovable_count AS unprovable_count
    FROM every_credit
    CROSS JOIN every_debit
    CROSS JOIN since
    CROSS JOIN opened_with
    CROSS JOIN (SELECT CAST(:base_cut AS pg_snapshot) IS NOT NULL AS is_based) AS knowledge
)

SELECT
    sums.*,
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
