-- Balances from first_key to last_key whose stored row is not what their postings prove at the statement's own instant,
-- or not the row that closes answer for: it is gone, or has another key or currency than when a run captured it.
-- verification_id, cut, cluster_id: the verification, whose sums are collected. base_date: its base close, NULL without
-- one. from_genesis: prove from the raw postings alone, and prove the base's snapshots too. ledger_id, currency,
-- balance_ids: only these balances, NULL for all. Amounts in minor units. Stored minus proven > 0: stored too high.
-- balance_key, currency: as captured. live_key, live_currency: as the row is now, NULL when it is gone.
-- Returns balance_count and gross_volume of the range in every row. When all agree: one row without balance_key.
-- Read-only, one MVCC snapshot. Cost: five range scans in key order, and what was recorded since the cut.
WITH
-- include postings.postings
,

captured AS (
    SELECT
        balance_key,
        balance_id,
        currency
    FROM ledger_eod.captured_balances
    WHERE balance_key BETWEEN CAST(:first_key AS bigint) AND CAST(:last_key AS bigint)
        AND (CAST(:balance_ids AS text[]) IS NULL OR balance_id = ANY(CAST(:balance_ids AS text[])))
),

live AS (
    SELECT ranged.*
    FROM (
-- include live_balances(condition: balances.id BETWEEN CAST(:first_key AS bigint) AND CAST(:last_key AS bigint))
    ) AS ranged
    WHERE CAST(:balance_ids AS text[]) IS NULL OR ranged.live_id = ANY(CAST(:balance_ids AS text[]))
),

paired AS MATERIALIZED (  -- by id, as postings name balances; nearly all pair up within the range
    SELECT
        captured.balance_key,
        captured.balance_id,
        captured.currency,
        live.*
    FROM captured
    FULL JOIN live ON live.live_id = captured.balance_id
),

unpaired AS (
    SELECT balance_id
    FROM paired
    WHERE live_key IS NULL
),

moved AS (  -- the rows of captured balances that have another key now
-- include live_balances(
--     condition: balances.balance_id = ANY(ARRAY(SELECT unpaired.balance_id FROM unpaired))
-- )
),

answered AS (
    SELECT paired.*
    FROM paired
    WHERE paired.balance_key IS NOT NULL AND paired.live_key IS NOT NULL
    UNION ALL
    SELECT
        paired.balance_key,
        paired.balance_id,
        paired.currency,
        moved.*
    FROM paired
    LEFT JOIN moved ON moved.live_id = paired.balance_id  -- LEFT: the row may be gone
    WHERE paired.live_key IS NULL
    UNION ALL
    SELECT
        live.live_key AS balance_key,
        live.live_id AS balance_id,
        live.live_currency AS currency,
        live.*
    FROM live
    INNER JOIN paired ON paired.live_key = live.live_key
    WHERE paired.balance_key IS NULL  -- not captured here, nor elsewhere, nor under another id
        AND NOT EXISTS (
            SELECT
            FROM captured AS renamed
            WHERE renamed.balance_key = paired.live_key
        )
        AND (
            SELECT elsewhere.balance_key FROM ledger_eod.captured_balances AS elsewhere
            WHERE elsewhere.balance_id = paired.live_id
        ) IS NULL
),

stored AS MATERIALIZED (  -- a row that is gone stores nothing
    SELECT
        balance_key,
        balance_id,
        currency,
        live_key,
        live_currency,
        COALESCE(balance, 0) AS balance,
        COALESCE(credit_balance, 0) AS credit_balance,
        COALESCE(debit_balance, 0) AS debit_balance,
        COALESCE(inflight_balance, 0) AS inflight_balance,
        COALESCE(inflight_credit_balance, 0) AS inflight_credit_balance,
        COALESCE(inflight_debit_balance, 0) AS inflight_debit_balance
    FROM answered
    WHERE (CAST(:ledger_id AS text) IS NULL OR ledger_id = CAST(:ledger_id AS text))
        AND (CAST(:currency AS text) IS NULL OR currency = CAST(:currency AS text))
),

base AS (
    SELECT
        balance_key,
        credit_balance,
        debit_balance,
        inflight_credit_balance,
        inflight_debit_balance
    FROM ledger_eod.balance_snapshots
    WHERE business_date = CAST(:base_date AS date)
        AND kind = 'close'
        AND balance_key BETWEEN CAST(:first_key AS bigint) AND CAST(:last_key AS bigint)
),

collected AS (
    SELECT
        balance_key,
        based_credit_balance,
        based_debit_balance,
        based_inflight_credit_balance,
        based_inflight_debit_balance,
        credit_balance,
        debit_balance,
        inflight_credit_balance,
        inflight_debit_balance
    FROM ledger_eod.verification_sums
    WHERE verification_id = CAST(:verification_id AS bigint)
        AND balance_key BETWEEN CAST(:first_key AS bigint) AND CAST(:last_key AS bigint)
),

meanwhile AS (  -- committed since the sums were collected; the stored row that this statement reads includes it
    SELECT
        postings.balance_id,
        sum(postings.credit) AS credit,
        sum(postings.debit) AS debit,
        sum(postings.inflight_credit) AS inflight_credit,
        sum(postings.inflight_debit) AS inflight_debit
    FROM postings
    WHERE
-- include close.after_cut(key: postings.transaction_key; xid: postings.recorded_xid; cut: CAST(:cut AS pg_snapshot))
        AND postings.balance_id IS NOT NULL
    GROUP BY postings.balance_id
),

opening AS (
-- include newest_declarations(condition: balance_key BETWEEN CAST(:first_key AS bigint) AND CAST(:last_key AS bigint))
),

witnesses AS (  -- LEFT: most balances have no postings since the close, and new ones have no snapshot
    SELECT
        stored.*,
        COALESCE(base.credit_balance, 0) AS snapshot_credit_balance,
        COALESCE(base.debit_balance, 0) AS snapshot_debit_balance,
        COALESCE(base.inflight_credit_balance, 0) AS snapshot_inflight_credit_balance,
        COALESCE(base.inflight_debit_balance, 0) AS snapshot_inflight_debit_balance,
        COALESCE(collected.based_credit_balance, 0) AS based_credit_balance,
        COALESCE(collected.based_debit_balance, 0) AS based_debit_balance,
        COALESCE(collected.based_inflight_credit_balance, 0) AS based_inflight_credit_balance,
        COALESCE(collected.based_inflight_debit_balance, 0) AS based_inflight_debit_balance,
        COALESCE(collected.credit_balance, 0) + COALESCE(meanwhile.credit, 0) + COALESCE(opening.credit_balance, 0)
            AS since_credit_balance,
        COALESCE(collected.debit_balance, 0) + COALESCE(meanwhile.debit, 0) + COALESCE(opening.debit_balance, 0)
            AS since_debit_balance,
        COALESCE(collected.inflight_credit_balance, 0) + COALESCE(meanwhile.inflight_credit, 0)
        + COALESCE(opening.inflight_credit_balance, 0) AS since_inflight_credit_balance,
        COALESCE(collected.inflight_debit_balance, 0) + COALESCE(meanwhile.inflight_debit, 0)
        + COALESCE(opening.inflight_debit_balance, 0) AS since_inflight_debit_balance
    FROM stored
    LEFT JOIN base ON base.balance_key = stored.balance_key
    LEFT JOIN collected ON collected.balance_key = stored.balance_key
    LEFT JOIN meanwhile ON meanwhile.balance_id = stored.balance_id
    LEFT JOIN opening ON opening.balance_key = stored.balance_key
),

compared AS MATERIALIZED (
    SELECT
        witnesses.*,
        witnesses.since_credit_balance + CASE
            WHEN CAST(:from_genesis AS boolean) THEN witnesses.based_credit_balance
            ELSE witnesses.snapshot_credit_balance
        END AS proven_credit_balance,
        witnesses.since_debit_balance + CASE
            WHEN CAST(:from_genesis AS boolean) THEN witnesses.based_debit_balance
            ELSE witnesses.snapshot_debit_balance
        END AS proven_debit_balance,
        witnesses.since_inflight_credit_balance + CASE
            WHEN CAST(:from_genesis AS boolean) THEN witnesses.based_inflight_credit_balance
            ELSE witnesses.snapshot_inflight_credit_balance
        END AS proven_inflight_credit_balance,
        witnesses.since_inflight_debit_balance + CASE
            WHEN CAST(:from_genesis AS boolean) THEN witnesses.based_inflight_debit_balance
            ELSE witnesses.snapshot_inflight_debit_balance
        END AS proven_inflight_debit_balance
    FROM witnesses
),

totals AS (
    SELECT
        count(*) AS balance_count,
        COALESCE(sum(proven_credit_balance + proven_debit_balance), 0) AS gross_volume
    FROM compared
),

suspects AS (
    SELECT
        balance_key,
        balance_id,
        currency,
        live_key,
        live_currency,
        balance AS stored_balance,
        credit_balance AS stored_credit_balance,
        debit_balance AS stored_debit_balance,
        inflight_balance AS stored_inflight_balance,
        inflight_credit_balance AS stored_inflight_credit_balance,
        inflight_debit_balance AS stored_inflight_debit_balance,
        proven_credit_balance,
        proven_debit_balance,
        proven_inflight_credit_balance,
        proven_inflight_debit_balance,
        since_credit_balance,
        since_debit_balance,
        since_inflight_credit_balance,
        since_inflight_debit_balance,
        snapshot_credit_balance,
        snapshot_debit_balance,
        snapshot_inflight_credit_balance,
        snapshot_inflight_debit_balance
    FROM compared
    WHERE credit_balance <> proven_credit_balance
        OR debit_balance <> proven_debit_balance
        OR inflight_credit_balance <> proven_inflight_credit_balance
        OR inflight_debit_balance <> proven_inflight_debit_balance
        OR balance <> credit_balance - debit_balance
        OR inflight_balance <> inflight_credit_balance - inflight_debit_balance
        OR inflight_credit_balance < 0
        OR inflight_debit_balance < 0
        OR live_key IS DISTINCT FROM balance_key
        OR live_currency IS DISTINCT FROM currency
        OR (
            CAST(:from_genesis AS boolean)
            AND CAST(:base_date AS date) IS NOT NULL
            AND (
                snapshot_credit_balance <> based_credit_balance
                OR snapshot_debit_balance <> based_debit_balance
                OR snapshot_inflight_credit_balance <> based_inflight_credit_balance
                OR snapshot_inflight_debit_balance <> based_inflight_debit_balance
            )
        )
)

SELECT
    suspects.*,
    totals.balance_count,
    totals.gross_volume
FROM totals
LEFT JOIN suspects ON TRUE
ORDER BY suspects.balance_key
