-- The posting rules: what each transaction does to its two balances. One row for each side of a transaction.
-- Amounts in minor units. effective_at is in UTC. recorded_xid is NULL for rows from before this project was installed.
-- exception: why the row cannot be counted as it stands. Its amounts are then zero, except for legacy_rate rows.
-- held_at: when the inflight amounts count. It is effective_at, except for a row that releases a hold: that counts from
-- the later of the two effective instants. is_release: the inflight amounts are such a release.
ruled_transactions AS NOT MATERIALIZED (  -- every row, whether it counts or not
    SELECT
        t.id AS transaction_key,
        t.source,
        t.destination,
        t.currency,
        t.recorded_xid,
        t.parent_transaction,
        legacy.rate,
        minor.amount,
        sha256(
            CASE
                WHEN legacy.rate = 1 THEN record_send(said.digested_row)
                ELSE record_send(row(said.digested_row, trim_scale(legacy.rate)))
            END
        ) AS row_digest,
        -- Five times as fast, and no proof of anything. The hash of a number leaves out its sign.
        hash_record_extended(
            said.digested_row, hash_record_extended(row(t.amount < 0, t.precise_amount < 0), 0)
        ) AS row_hash,
-- include effective_at(row: t)
            AS effective_at,
-- include counts(status: t.status)
            AS counts,
-- include settles(status: t.status)
            AS settles,
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
        -- What the transaction puts on hold itself.
        CASE WHEN t.status = 'INFLIGHT' THEN minor.amount ELSE 0 END AS own_hold,
        -- The effective instant of the hold that the transaction releases; NULL when it releases none.
        -- Only a child of an INFLIGHT row releases. A refund, a queue's copy and a split have a parent
        -- too, and do not.
        -- The subquery is scalar, so that it stays one index look-up for each child.
        CASE
            WHEN t.parent_transaction IS NOT NULL
                AND
-- include settles(status: t.status)
                THEN (
                    SELECT
-- include effective_at(row: parent)
                            AS effective_at
                    FROM blnk.transactions AS parent
                    WHERE parent.transaction_id = t.parent_transaction AND parent.status = 'INFLIGHT'
                )
        END AS hold_effective_at
    FROM blnk.transactions AS t
    CROSS JOIN
        LATERAL (
-- include minor_amount
        ) AS minor
    CROSS JOIN
        LATERAL (
-- include rate
        ) AS legacy
    CROSS JOIN
        LATERAL (
            SELECT
-- include digested_row(row: t)
                    AS digested_row
        ) AS said
),

provable_transactions AS NOT MATERIALIZED (
    SELECT
        transaction_key,
        source,
        destination,
        effective_at,
        recorded_xid,
        parent_transaction,
        exception,
        rate,
        hold_effective_at IS NOT NULL AS is_release,
        CASE WHEN hold_effective_at > effective_at THEN hold_effective_at ELSE effective_at END AS held_at,
        CASE WHEN COALESCE(exception, 'legacy_rate') = 'legacy_rate' THEN trunc(posted) ELSE 0 END AS posted,
        CASE
            WHEN COALESCE(exception, 'legacy_rate') <> 'legacy_rate' THEN 0
            WHEN hold_effective_at IS NOT NULL THEN -trunc(amount)
            ELSE trunc(own_hold)
        END AS held
    FROM ruled_transactions
    WHERE counts
),

credits AS NOT MATERIALIZED (
    SELECT
        transaction_key,
        destination AS balance_id,
        effective_at,
        held_at,
        recorded_xid,
        exception,
        is_release,
        trunc(posted * rate) AS credit,
        trunc(held * rate) AS inflight_credit
    FROM provable_transactions
),

debits AS NOT MATERIALIZED (
    SELECT
        transaction_key,
        source AS balance_id,
        effective_at,
        held_at,
        recorded_xid,
        exception,
        is_release,
        posted AS debit,
        held AS inflight_debit
    FROM provable_transactions
),

postings AS NOT MATERIALIZED (
    SELECT
        transaction_key,
        balance_id,
        effective_at,
        held_at,
        recorded_xid,
        exception,
        is_release,
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
        held_at,
        recorded_xid,
        exception,
        is_release,
        CAST(0 AS numeric) AS credit,
        debit,
        CAST(0 AS numeric) AS inflight_credit,
        inflight_debit
    FROM debits
)
