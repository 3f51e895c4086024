-- Balances from first_key to last_key whose stored row is not what their postings prove at the statement's own instant.
-- verification_id, cut: the verification, whose sums are collected. base_date: its base close, NULL without one.
-- from_genesis: prove from the raw postings alone, and prove the base's snapshots too. ledger_id, currency,
-- balance_ids: only these balances, NULL for all. Amounts in minor units. Stored minus proven > 0: stored too high.
-- Returns balance_count and gross_volume of the range in every row. When all agree: one row without balance_key.
-- Read-only, one MVCC snapshot. Cost: three range scans in key order, and what was recorded since the cut.
WITH
-- include postings.postings
,

stored AS (
    SELECT
        balances.id AS balance_key,
        balances.balance_id,
        balances.currency,
        balances.balance,
        balances.credit_balance,
        balances.debit_balance,
        balances.inflight_balance,
        balances.inflight_credit_balance,
        balances.inflight_debit_balance
    FROM blnk.balances
    WHERE balances.id BETWEEN CAST(:first_key AS bigint) AND CAST(:last_key AS bigint)
        AND (CAST(:ledger_id AS text) IS NULL OR balances.ledger_id = CAST(:ledger_id AS text))
        AND (CAST(:currency AS text) IS NULL OR balances.currency = CAST(:currency AS text))
        AND (CAST(:balance_ids AS text[]) IS NULL OR balances.balance_id = ANY(CAST(:balance_ids AS text[])))
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
        balance_id,
        sum(credit) AS credit,
        sum(debit) AS debit,
        sum(inflight_credit) AS inflight_credit,
        sum(inflight_debit) AS inflight_debit
    FROM postings
    WHERE
-- include close.after_cut(xid: recorded_xid; cut: CAST(:cut AS pg_snapshot))
        AND balance_id IS NOT NULL
    GROUP BY balance_id
),

opening AS (  -- the newest declaration of a balance counts
    SELECT DISTINCT ON (balance_key)
        balance_key,
        credit_balance,
        debit_balance,
        inflight_credit_balance,
        inflight_debit_balance
    FROM ledger_eod.opening_balances
    WHERE balance_key BETWEEN CAST(:first_key AS bigint) AND CAST(:last_key AS bigint)
    ORDER BY balance_key ASC, opening_balance_id DESC
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
