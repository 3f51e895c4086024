-- The posting rules: what each transaction does to its two balances. One row for each side of a transaction.
-- Amounts in minor units. effective_at is in UTC. recorded_xid is NULL for rows from before this project was installed.
-- exception: why the row cannot be counted as it stands. Its amounts are then zero, except for legacy_rate rows.
counted_transactions AS NOT MATERIALIZED (
    SELECT
        t.id AS transaction_key,
        t.source,
        t.destination,
        t.recorded_xid,
        legacy.rate,
-- include effective_at(row: t)
            AS effective_at,
        CASE
            -- Fast path: nearly every row; none of the exceptions below applies.
            -- min_scale is NULL for NaN and infinities.
            WHEN min_scale(minor.amount) = 0 AND legacy.rate = 1 AND t.status IN ('APPLIED', 'INFLIGHT', 'VOID')
                THEN NULL
            WHEN minor.amount IS NULL THEN 'amount_missing'
            WHEN minor.amount IN ('NaN', 'Infinity', '-Infinity') THEN 'amount_not_a_number'
            WHEN minor.amount <> trunc(minor.amount) THEN 'amount_not_integral'
            WHEN legacy.rate = 0 THEN 'legacy_rate_not_a_number'
            WHEN legacy.rate <> 1 AND minor.amount * legacy.rate <> trunc(minor.amount * legacy.rate)
                THEN 'legacy_rate_not_integral'
            WHEN legacy.rate <> 1 THEN 'legacy_rate'
            WHEN COALESCE(t.status, '') NOT IN ('APPLIED', 'INFLIGHT', 'VOID') THEN 'unknown_status'
        END AS exception,
        -- What the transaction posts.
        CASE WHEN t.status = 'APPLIED' THEN minor.amount ELSE 0 END AS posted,
        -- What the transaction puts on hold, or takes off a hold when it is negative. Only a child of an INFLIGHT
        -- row takes off a hold. A refund, a queue's copy and a split have a parent too, and do not.
        -- The subquery is scalar, so that it stays one index look-up for each child.
        CASE
            WHEN t.status = 'INFLIGHT' THEN minor.amount
            WHEN t.parent_transaction IS NOT NULL
                AND
-- include settles(status: t.status)
                AND (
                    SELECT parent.status
                    FROM blnk.transactions AS parent
                    WHERE parent.transaction_id = t.parent_transaction
                ) = 'INFLIGHT'
                THEN -minor.amount
            ELSE 0
        END AS held
    FROM blnk.transactions AS t
    CROSS JOIN
        LATERAL (
-- include minor_amount
        ) AS minor
    CROSS JOIN
        LATERAL (
-- include rate
        ) AS legacy
    WHERE
-- include counts(status: t.status)
),

provable_transactions AS NOT MATERIALIZED (
    SELECT
        transaction_key,
        source,
        destination,
        effective_at,
        recorded_xid,
        exception,
        rate,
        CASE WHEN COALESCE(exception, 'legacy_rate') = 'legacy_rate' THEN trunc(posted) ELSE 0 END AS posted,
        CASE WHEN COALESCE(exception, 'legacy_rate') = 'legacy_rate' THEN trunc(held) ELSE 0 END AS held
    FROM counted_transactions
),

credits AS NOT MATERIALIZED (
    SELECT
        transaction_key,
        destination AS balance_id,
        effective_at,
        recorded_xid,
        exception,
        trunc(posted * rate) AS credit,
        trunc(held * rate) AS inflight_credit
    FROM provable_transactions
),

debits AS NOT MATERIALIZED (
    SELECT
        transaction_key,
        source AS balance_id,
        effective_at,
        recorded_xid,
        exception,
        posted AS debit,
        held AS inflight_debit
    FROM provable_transactions
),

postings AS NOT MATERIALIZED (
    SELECT
        transaction_key,
        balance_id,
        effective_at,
        recorded_xid,
        exception,
        credit,
        CAST(0 AS numeric) AS debit,
        inflight_credit,
        CAST(0 AS numeric) AS inflight_debit
    FROM credits
    UNION ALL
    SELECT
        transaction_key,
        balance_id,
        effective_at,
        recorded_xid,
        exception,
        CAST(0 AS numeric) AS credit,
        debit,
        CAST(0 AS numeric) AS inflight_credit,
        inflight_debit
    FROM debits
)
