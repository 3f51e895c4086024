-- Write one run's activity: for each balance and effective business date, what is in the run's cut and not in its
-- base's cut. Also write an exception for each transaction whose two sides do not cancel out within one currency, or
-- whose amount cannot be counted. Returns activity_count, late_count, exception_count.
-- run_id: the run. closes_at, cut: its cut. base_closes_at, base_cut: its base's cut, '-infinity' and NULL without one.
-- business_dates, opens_at: the calendar as two parallel ascending arrays. An instant before the first belongs to it.
-- Amounts in minor units; differences are credit minus debit. Locks no ledger row.
-- Cost: what became effective or was recorded since the base, two index range scans.
WITH
-- include postings.postings
,

collected AS MATERIALIZED (
-- include since_base(
--     relation: postings
--     columns: transaction_key, balance_id, effective_at, exception, credit, debit, inflight_credit, inflight_debit
--     condition: effective_at < CAST(:closes_at AS timestamptz) AND balance_id IS NOT NULL
--     base: base
-- )
),

keyed AS (  -- LEFT, so that a posting on a balance that does not exist becomes an exception
    SELECT
        collected.*,
        balances.id AS balance_key,
        balances.currency
    FROM collected
    LEFT JOIN blnk.balances ON balances.balance_id = collected.balance_id
),

written_activity AS (
    INSERT INTO ledger_eod.activity (
        run_id, balance_key, effective_date, is_late, posting_count, credit_balance, debit_balance,
        inflight_credit_balance, inflight_debit_balance, last_transaction_key
    )
    SELECT
        CAST(:run_id AS bigint) AS run_id,
        balance_key,
        (CAST(:business_dates AS date[]))[
            GREATEST(width_bucket(effective_at, CAST(:opens_at AS timestamptz[])), 1)
        ] AS effective_date,
        bool_or(effective_at < CAST(:base_closes_at AS timestamptz)) AS is_late,
        count(*) AS posting_count,
        sum(credit) AS credit_balance,
        sum(debit) AS debit_balance,
        sum(inflight_credit) AS inflight_credit_balance,
        sum(inflight_debit) AS inflight_debit_balance,
        max(transaction_key) AS last_transaction_key
    FROM keyed
    WHERE balance_key IS NOT NULL
    GROUP BY balance_key, effective_date
    RETURNING is_late
),

written_exceptions AS (
    INSERT INTO ledger_eod.run_exceptions (
        run_id, transaction_key, currency, cause, difference, inflight_difference
    )
    SELECT
        CAST(:run_id AS bigint) AS run_id,
        transaction_key,
        COALESCE(currency, '') AS currency,
        CASE
            WHEN max(exception) IS NOT NULL THEN max(exception)
            WHEN bool_or(bool_or(balance_key IS NULL)) OVER per_transaction THEN 'unknown_balance'
            WHEN count(*) OVER per_transaction > 1 THEN 'cross_currency'
            ELSE 'one_sided'
        END AS cause,
        sum(credit) - sum(debit) AS difference,
        sum(inflight_credit) - sum(inflight_debit) AS inflight_difference
    FROM keyed
    GROUP BY transaction_key, currency
    HAVING sum(credit) <> sum(debit)
        OR sum(inflight_credit) <> sum(inflight_debit)
        OR max(exception) IS NOT NULL
        OR bool_or(balance_key IS NULL)
    WINDOW per_transaction AS (PARTITION BY transaction_key)
    RETURNING transaction_key
)

SELECT
    (SELECT count(*) FROM written_activity) AS activity_count,
    (
        SELECT count(*) FROM written_activity
        WHERE is_late
    ) AS late_count,
    (SELECT count(*) FROM written_exceptions) AS exception_count
