-- What one run's snapshots must add up to, for each currency: its base's totals plus its activity. Minor units.
-- run_id, business_date, kind: the run. base_run_id, base_date: its base, NULL without one.
-- partial: the run holds only balances that had no snapshot of that date and kind yet, so that only those are summed.
-- itemised_difference, itemised_inflight_difference: credit minus debit that exceptions of this run and of its bases
-- explain. Read-only. Cost: the run's activity; for a partial run also its snapshots.
WITH written AS (
    SELECT snapshots.balance_key
    FROM ledger_eod.balance_snapshots AS snapshots
    WHERE CAST(:partial AS boolean)
        AND snapshots.business_date = CAST(:business_date AS date)
        AND snapshots.kind = CAST(:kind AS ledger_eod.run_kind)
        AND snapshots.run_id = CAST(:run_id AS bigint)
),

parts AS (
    SELECT
        currency,
        credit_balance,
        debit_balance,
        inflight_credit_balance,
        inflight_debit_balance,
        itemised_difference,
        itemised_inflight_difference
    FROM ledger_eod.run_totals
    WHERE run_id = CAST(:base_run_id AS bigint) AND NOT CAST(:partial AS boolean)
    UNION ALL
    SELECT
        captured.currency,
        base.credit_balance,
        base.debit_balance,
        base.inflight_credit_balance,
        base.inflight_debit_balance,
        0 AS itemised_difference,
        0 AS itemised_inflight_difference
    FROM written
    INNER JOIN ledger_eod.balance_snapshots AS base
        ON base.business_date = CAST(:base_date AS date)
            AND base.kind = 'close'
            AND base.balance_key = written.balance_key
    INNER JOIN ledger_eod.captured_balances AS captured ON captured.balance_key = written.balance_key
    UNION ALL
    SELECT
        captured.currency,
        activity.credit_balance,
        activity.debit_balance,
        activity.inflight_credit_balance,
        activity.inflight_debit_balance,
        0 AS itemised_difference,
        0 AS itemised_inflight_difference
    FROM ledger_eod.activity
    INNER JOIN ledger_eod.captured_balances AS captured ON captured.balance_key = activity.balance_key
    WHERE activity.run_id = CAST(:run_id AS bigint)
        AND (NOT CAST(:partial AS boolean) OR activity.balance_key IN (SELECT written.balance_key FROM written))
    UNION ALL
    SELECT
        currency,
        0 AS credit_balance,
        0 AS debit_balance,
        0 AS inflight_credit_balance,
        0 AS inflight_debit_balance,
        difference AS itemised_difference,
        inflight_difference AS itemised_inflight_difference
    FROM ledger_eod.run_exceptions
    WHERE run_id = CAST(:run_id AS bigint) AND currency <> '' AND NOT CAST(:partial AS boolean)
)

SELECT
    currency,
    sum(credit_balance) AS credit_balance,
    sum(debit_balance) AS debit_balance,
    sum(inflight_credit_balance) AS inflight_credit_balance,
    sum(inflight_debit_balance) AS inflight_debit_balance,
    sum(itemised_difference) AS itemised_difference,
    sum(itemised_inflight_difference) AS itemised_inflight_difference
FROM parts
GROUP BY currency
ORDER BY currency
