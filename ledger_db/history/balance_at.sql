-- One balance at one instant, starting from the anchor run's snapshot: the snapshot, plus late arrivals that later runs
-- collected, plus raw postings since. Minor units. Always one row. Read-only.
-- balance_id, balance_key: the balance. instant: exclusive. anchor_date, anchor_closes_at, anchor_run_id: the newest
-- certified close that ends at or before the instant. genesis_run_id: the first run of its chain.
-- known_run_id: the last run whose activity counts. known_cut: the knowledge time; NULL for all that is committed now.
-- uncollected_since: the cut up to which runs have collected; NULL to leave out what was recorded later.
-- extra_run_id: an interim run whose own activity counts too, or NULL.
-- Cost: the balance's postings since the anchor, by index.
WITH
-- include postings.postings
,

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
    -- Late arrivals for the anchor, collected by later runs.
    SELECT
        credit_balance,
        debit_balance,
        inflight_credit_balance,
        inflight_debit_balance
    FROM ledger_eod.activity
    WHERE is_late
        AND balance_key = CAST(:balance_key AS bigint)
        AND effective_date <= CAST(:anchor_date AS date)
        AND (
            run_id = CAST(:extra_run_id AS bigint)
            OR run_id IN (
                SELECT later.run_id
                FROM ledger_eod.runs AS later
                WHERE later.genesis_run_id = CAST(:genesis_run_id AS bigint)
                    AND later.kind = 'close'
                    AND later.status = 'certified'
                    AND later.run_id > CAST(:anchor_run_id AS bigint)
                    AND later.run_id <= CAST(:known_run_id AS bigint)
            )
        )
    UNION ALL
    -- Raw postings that are effective after the anchor closed. Separate from the next part, so that the index suffices.
    SELECT
        credit,
        debit,
        inflight_credit,
        inflight_debit
    FROM postings
    WHERE balance_id = CAST(:balance_id AS text)
        AND effective_at >= CAST(:anchor_closes_at AS timestamptz)
        AND effective_at < CAST(:instant AS timestamptz)
        AND (
            CAST(:known_cut AS pg_snapshot) IS NULL
            OR
-- include close.in_cut(xid: recorded_xid; cut: CAST(:known_cut AS pg_snapshot))
        )
    UNION ALL
    -- Effective before, but recorded after the last run collected: few rows, by the index on recorded_xid.
    SELECT
        credit,
        debit,
        inflight_credit,
        inflight_debit
    FROM postings
    WHERE balance_id = CAST(:balance_id AS text)
        -- A plan made without the values could take the previous part's index and read all that lies before the
        -- anchor. With IS TRUE that index has no condition to use. It also lacks transaction_key; every row satisfies
        -- the condition on that column.
        AND (effective_at < CAST(:anchor_closes_at AS timestamptz)) IS TRUE
        AND
-- include close.after_cut(xid: recorded_xid; cut: CAST(:uncollected_since AS pg_snapshot))
        AND transaction_key >= CAST('-9223372036854775808' AS bigint)
)

SELECT
    COALESCE(sum(credit_balance), 0) AS credit_balance,
    COALESCE(sum(debit_balance), 0) AS debit_balance,
    COALESCE(sum(inflight_credit_balance), 0) AS inflight_credit_balance,
    COALESCE(sum(inflight_debit_balance), 0) AS inflight_debit_balance
FROM parts
