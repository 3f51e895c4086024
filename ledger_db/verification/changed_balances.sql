-- Balances of which the rows that a run counted for some business dates are not what it collected for them, or have
-- another date now. The rows are those of the run's keys, whatever has become of them.
-- run_id, business_date, closes_at, genesis_run_id, time_zone, cut_off: the run. dates: the business dates to compare.
-- base_run_id, base_closes_at: its base, NULL and '-infinity' without one. Amounts in minor units.
-- Returns, for each balance and date, what was collected (then, stored) and what the rows add up to (now, proven), and
-- whether it differs, with at most 20 transactions, and at most 20 that have another date now.
-- Read-only. Cost: the run's rows on these dates, by primary key.
WITH
-- include postings.postings
,

spans AS MATERIALIZED (
    SELECT
        key_set,
        effective_date,
        unnest(keys) AS span
    FROM ledger_eod.run_keys
    WHERE run_id = CAST(:run_id AS bigint)
        AND key_set IN ('counted', 'released')
        AND effective_date = ANY(CAST(:dates AS date[]))
),

rows_of_keys AS MATERIALIZED (
    SELECT
        present.*,
        spans.key_set,
        spans.effective_date
    FROM spans
    CROSS JOIN
        LATERAL (  -- ORDER BY, so that each span stays a look-up: as a join it may read the whole ledger
            SELECT
                postings.transaction_key,
                postings.balance_id,
                postings.effective_at,
                postings.is_release,
                postings.credit,
                postings.debit,
                postings.inflight_credit,
                postings.inflight_debit
            FROM postings
            WHERE postings.transaction_key >= lower(spans.span) AND postings.transaction_key < upper(spans.span)
            ORDER BY postings.transaction_key
        ) AS present
),

present AS (
    SELECT
        counted.balance_id,
        counted.effective_date,
        counted.transaction_key,
        1 AS posting_count,
        counted.credit,
        counted.debit,
        CASE WHEN counted.is_release THEN 0 ELSE counted.inflight_credit END AS inflight_credit,
        CASE WHEN counted.is_release THEN 0 ELSE counted.inflight_debit END AS inflight_debit,
        CASE
            WHEN counted.effective_at >= CAST(:closes_at AS timestamptz) THEN TRUE
            WHEN counted.effective_at >= CAST(:base_closes_at AS timestamptz)
                THEN counted.effective_date <> CAST(:business_date AS date)
            ELSE
                counted.effective_date
                <>
-- include close.business_date(instant: counted.effective_at)
        END AS has_moved
    FROM rows_of_keys AS counted
    WHERE counted.key_set = 'counted'
    UNION ALL
    SELECT
        released.balance_id,
        released.effective_date,
        released.transaction_key,
        0 AS posting_count,
        0 AS credit,
        0 AS debit,
        released.inflight_credit,
        released.inflight_debit,
        FALSE AS has_moved
    FROM rows_of_keys AS released
    WHERE released.key_set = 'released' AND released.is_release
),

raw AS (
    SELECT
        captured.balance_key,
        present.effective_date,
        sum(present.posting_count) AS posting_count,
        sum(present.credit) AS credit_balance,
        sum(present.debit) AS debit_balance,
        sum(present.inflight_credit) AS inflight_credit_balance,
        sum(present.inflight_debit) AS inflight_debit_balance,
        (array_agg(present.transaction_key ORDER BY present.transaction_key DESC))[1:20] AS transaction_keys,
        (array_agg(present.transaction_key ORDER BY present.transaction_key) FILTER (WHERE present.has_moved))[1:20]
            AS moved_keys
    FROM present
    INNER JOIN ledger_eod.captured_balances AS captured ON captured.balance_id = present.balance_id
    GROUP BY captured.balance_key, present.effective_date
),

collected AS (
    SELECT
        balance_key,
        effective_date,
        sum(posting_count) AS posting_count,
        sum(credit_balance) AS credit_balance,
        sum(debit_balance) AS debit_balance,
        sum(inflight_credit_balance) AS inflight_credit_balance,
        sum(inflight_debit_balance) AS inflight_debit_balance
    FROM ledger_eod.activity
    WHERE run_id = CAST(:run_id AS bigint) AND effective_date = ANY(CAST(:dates AS date[]))
    GROUP BY balance_key, effective_date
),

compared AS (  -- FULL: a removed row can leave a balance without postings, an edited one can be on another balance now
    SELECT
        balance_key,
        effective_date,
        raw.transaction_keys,
        raw.moved_keys,
        COALESCE(collected.posting_count, 0) AS postings_then,
        COALESCE(raw.posting_count, 0) AS postings_now,
        COALESCE(collected.credit_balance, 0) AS stored_credit_balance,
        COALESCE(collected.debit_balance, 0) AS stored_debit_balance,
        COALESCE(collected.inflight_credit_balance, 0) AS stored_inflight_credit_balance,
        COALESCE(collected.inflight_debit_balance, 0) AS stored_inflight_debit_balance,
        COALESCE(raw.credit_balance, 0) AS proven_credit_balance,
        COALESCE(raw.debit_balance, 0) AS proven_debit_balance,
        COALESCE(raw.inflight_credit_balance, 0) AS proven_inflight_credit_balance,
        COALESCE(raw.inflight_debit_balance, 0) AS proven_inflight_debit_balance
    FROM collected
    FULL JOIN raw USING (balance_key, effective_date)
),

judged AS (
    SELECT
        compared.*,
        row(
            compared.postings_then, compared.stored_credit_balance, compared.stored_debit_balance,
            compared.stored_inflight_credit_balance, compared.stored_inflight_debit_balance
        ) <> row(
            compared.postings_now, compared.proven_credit_balance, compared.proven_debit_balance,
            compared.proven_inflight_credit_balance, compared.proven_inflight_debit_balance
        ) AS differs
    FROM compared
)

SELECT
    judged.*,
    ARRAY(
        SELECT t.transaction_id FROM blnk.transactions AS t
        WHERE t.id = ANY(judged.transaction_keys)
        ORDER BY t.id DESC
    ) AS transaction_ids,
    ARRAY(
        SELECT t.transaction_id FROM blnk.transactions AS t
        WHERE t.id = ANY(judged.moved_keys)
        ORDER BY t.id
    ) AS moved_transaction_ids
FROM judged
WHERE judged.differs OR judged.moved_keys IS NOT NULL
ORDER BY judged.effective_date, judged.balance_key
