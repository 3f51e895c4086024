-- Balances whose snapshot of a close is not the sum of what the runs up to it collected.
-- run_id, business_date: the close. genesis_run_id: the first run of its chain. Minor units.
-- Returns stored, which is the snapshot, and proven, which is the collected activity. is_missing: there is no snapshot.
-- Read-only. Cost: the chain's activity. Needed only when a run's checksum differs.
WITH snapshots AS (
    SELECT
        balance_key,
        credit_balance,
        debit_balance,
        inflight_credit_balance,
        inflight_debit_balance
    FROM ledger_eod.balance_snapshots
    WHERE business_date = CAST(:business_date AS date) AND kind = 'close'
),

collected AS (
    SELECT
        activity.balance_key,
        sum(activity.credit_balance) AS credit_balance,
        sum(activity.debit_balance) AS debit_balance,
        sum(activity.inflight_credit_balance) AS inflight_credit_balance,
        sum(activity.inflight_debit_balance) AS inflight_debit_balance
    FROM ledger_eod.activity
    INNER JOIN ledger_eod.runs ON runs.run_id = activity.run_id
    WHERE
-- include close.in_chain(
--     run: runs
--     genesis_run_id: CAST(:genesis_run_id AS bigint)
--     run_id: CAST(:run_id AS bigint)
-- )
    GROUP BY activity.balance_key
),

compared AS (  -- FULL: a snapshot that was removed is a difference too
    SELECT
        balance_key,
        snapshots.balance_key IS NULL AS is_missing,
        COALESCE(snapshots.credit_balance, 0) AS stored_credit_balance,
        COALESCE(snapshots.debit_balance, 0) AS stored_debit_balance,
        COALESCE(snapshots.inflight_credit_balance, 0) AS stored_inflight_credit_balance,
        COALESCE(snapshots.inflight_debit_balance, 0) AS stored_inflight_debit_balance,
        COALESCE(collected.credit_balance, 0) AS proven_credit_balance,
        COALESCE(collected.debit_balance, 0) AS proven_debit_balance,
        COALESCE(collected.inflight_credit_balance, 0) AS proven_inflight_credit_balance,
        COALESCE(collected.inflight_debit_balance, 0) AS proven_inflight_debit_balance
    FROM snapshots
    FULL JOIN collected USING (balance_key)
)

SELECT *
FROM compared
WHERE is_missing
    OR (
        stored_credit_balance, stored_debit_balance, stored_inflight_credit_balance, stored_inflight_debit_balance
    ) IS DISTINCT FROM (
        proven_credit_balance, proven_debit_balance, proven_inflight_credit_balance, proven_inflight_debit_balance
    )
ORDER BY balance_key
