-- Balances whose raw postings of a run, on given business dates, differ from what the run collected.
-- run_id: the run. closes_at, cut, base_closes_at, base_cut, business_dates, opens_at: as for checksum_rows.
-- dates: the effective business dates to compare. Amounts in minor units. Returns, for each balance and date, what was
-- collected (then, stored) and what the raw rows add up to (now, proven), with at most 20 transactions.
-- Read-only. Cost: the run's rows.
WITH
-- include postings.postings
,

in_cut AS MATERIALIZED (
-- include close.since_base(
--     relation: postings
--     columns: transaction_key, balance_id, effective_at, credit, debit, inflight_credit, inflight_debit
--     condition: effective_at < CAST(:closes_at AS timestamptz) AND balance_id IS NOT NULL
--     base: base
-- )
),

dated AS (
    SELECT
        balances.id AS balance_key,
        in_cut.transaction_key,
        in_cut.credit,
        in_cut.debit,
        in_cut.inflight_credit,
        in_cut.inflight_debit,
        (CAST(:business_dates AS date[]))[
            GREATEST(width_bucket(in_cut.effective_at, CAST(:opens_at AS timestamptz[])), 1)
        ] AS effective_date
    FROM in_cut
    INNER JOIN blnk.balances ON balances.balance_id = in_cut.balance_id
),

raw AS (
    SELECT
        balance_key,
        effective_date,
        count(*) AS posting_count,
        sum(credit) AS credit_balance,
        sum(debit) AS debit_balance,
        sum(inflight_credit) AS inflight_credit_balance,
        sum(inflight_debit) AS inflight_debit_balance,
        (array_agg(transaction_key ORDER BY transaction_key DESC))[1:20] AS transaction_keys
    FROM dated
    WHERE effective_date = ANY(CAST(:dates AS date[]))
    GROUP BY balance_key, effective_date
),

collected AS (
    SELECT
        balance_key,
        effective_date,
        posting_count,
        credit_balance,
        debit_balance,
        inflight_credit_balance,
        inflight_debit_balance
    FROM ledger_eod.activity
    WHERE run_id = CAST(:run_id AS bigint) AND effective_date = ANY(CAST(:dates AS date[]))
),

compared AS (  -- FULL: a removed row can leave a balance without postings, an added one was never collected
    SELECT
        balance_key,
        effective_date,
        raw.transaction_keys,
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
)

SELECT
    compared.*,
    ARRAY(
        SELECT t.transaction_id FROM blnk.transactions AS t
        WHERE t.id = ANY(compared.transaction_keys)
        ORDER BY t.id DESC
    ) AS transaction_ids
FROM compared
WHERE (
    compared.postings_then, compared.stored_credit_balance, compared.stored_debit_balance,
    compared.stored_inflight_credit_balance, compared.stored_inflight_debit_balance
) IS DISTINCT FROM (
    compared.postings_now, compared.proven_credit_balance, compared.proven_debit_balance,
    compared.proven_inflight_credit_balance, compared.proven_inflight_debit_balance
)
ORDER BY compared.effective_date, compared.balance_key
