-- Store by what the last close of the previous chain differs from what a run's rows say of the instant at which that
-- close ended: the balances, and the transactions that only one of the two counts. The run begins a new chain and has
-- counted its rows. Minor units.
-- run_id: the run. previous_run_id, previous_genesis_run_id, previous_business_date, previous_closes_at: the close.
-- has_same_rows: the previous chain's keys stand for the rows that it counted; if not, only balances are compared.
-- Returns the first balance whose rows say something else now than the run counted: balance_id, counted, rows_say.
-- No row: the comparison is of what the run counted. Cost: two passes over the ledger.
WITH
-- include postings.postings
,

counted AS MATERIALIZED (
-- include keys_by_block(run_id: CAST(:run_id AS bigint); key_set: counted)
),

released AS MATERIALIZED (
-- include keys_by_block(run_id: CAST(:run_id AS bigint); key_set: released)
),

counted_before AS MATERIALIZED (
-- include chain_keys_by_block(key_set: counted; base: previous)
),

released_before AS MATERIALIZED (
-- include chain_keys_by_block(key_set: released; base: previous)
),

keyed AS NOT MATERIALIZED (
    SELECT
        captured.balance_key,
        postings.transaction_key,
        postings.credit,
        postings.debit,
        postings.inflight_credit,
        postings.inflight_debit,
        COALESCE(counted.keys @> CAST(postings.transaction_key AS bigint), FALSE) AS is_counted,
        COALESCE(counted.keys @> CAST(postings.transaction_key AS bigint), FALSE)
        AND postings.effective_at < CAST(:previous_closes_at AS timestamptz) AS is_posted,
        COALESCE(counted_before.keys @> CAST(postings.transaction_key AS bigint), FALSE) AS was_posted,
        NOT postings.is_release
        OR COALESCE(released.keys @> CAST(postings.transaction_key AS bigint), FALSE) AS is_held,
        postings.held_at < CAST(:previous_closes_at AS timestamptz) AS is_held_before,
        NOT postings.is_release
        OR COALESCE(released_before.keys @> CAST(postings.transaction_key AS bigint), FALSE) AS was_held
    FROM postings
    INNER JOIN ledger_eod.captured_balances AS captured ON captured.balance_id = postings.balance_id
    LEFT JOIN counted ON counted.block = postings.transaction_key >> 13
    LEFT JOIN released ON released.block = postings.transaction_key >> 13
    LEFT JOIN counted_before ON counted_before.block = postings.transaction_key >> 13
    LEFT JOIN released_before ON released_before.block = postings.transaction_key >> 13
),

judged AS MATERIALIZED (  -- signs: 1, only the new chain counts it for that instant; -1, only the previous one does
    SELECT
        *,
        is_posted AND is_held AND is_held_before AS is_held_then,
        CASE
            WHEN NOT CAST(:has_same_rows AS boolean) THEN 0
            ELSE CAST(is_posted AS integer) - CAST(was_posted AS integer)
        END AS posted_sign,
        CASE
            WHEN NOT CAST(:has_same_rows AS boolean) THEN 0
            ELSE CAST(is_posted AND is_held AND is_held_before AS integer) - CAST(was_posted AND was_held AS integer)
        END AS held_sign
    FROM keyed
    WHERE is_counted OR was_posted
),

written_transactions AS (
    INSERT INTO ledger_eod.new_chain_transactions (
        run_id, balance_key, transaction_key, is_added, credit_balance, debit_balance, inflight_credit_balance,
        inflight_debit_balance
    )
    SELECT
        CAST(:run_id AS bigint) AS run_id,
        balance_key,
        transaction_key,
        bool_or(posted_sign > 0 OR (posted_sign = 0 AND held_sign > 0)) AS is_added,
        sum(posted_sign * credit) AS credit_balance,
        sum(posted_sign * debit) AS debit_balance,
        sum(held_sign * inflight_credit) AS inflight_credit_balance,
        sum(held_sign * inflight_debit) AS inflight_debit_balance
    FROM judged
    WHERE posted_sign <> 0 OR held_sign <> 0
    GROUP BY balance_key, transaction_key
    HAVING
        sum(posted_sign * credit) <> 0 OR sum(posted_sign * debit) <> 0
        OR sum(held_sign * inflight_credit) <> 0 OR sum(held_sign * inflight_debit) <> 0
    RETURNING balance_key
),

sums AS MATERIALIZED (
    SELECT
        balance_key,
        COALESCE(sum(credit) FILTER (WHERE is_counted), 0) AS all_credit,
        COALESCE(sum(debit) FILTER (WHERE is_counted), 0) AS all_debit,
        COALESCE(sum(inflight_credit) FILTER (WHERE is_counted AND is_held), 0) AS all_inflight_credit,
        COALESCE(sum(inflight_debit) FILTER (WHERE is_counted AND is_held), 0) AS all_inflight_debit,
        COALESCE(sum(credit) FILTER (WHERE is_posted), 0) AS credit,
        COALESCE(sum(debit) FILTER (WHERE is_posted), 0) AS debit,
        COALESCE(sum(inflight_credit) FILTER (WHERE is_held_then), 0) AS inflight_credit,
        COALESCE(sum(inflight_debit) FILTER (WHERE is_held_then), 0) AS inflight_debit,
        -- what the previous chain counted, as it is now
        COALESCE(sum(credit) FILTER (WHERE was_posted), 0) AS kept_credit,
        COALESCE(sum(debit) FILTER (WHERE was_posted), 0) AS kept_debit,
        COALESCE(sum(inflight_credit) FILTER (WHERE was_posted AND was_held), 0) AS kept_inflight_credit,
        COALESCE(sum(inflight_debit) FILTER (WHERE was_posted AND was_held), 0) AS kept_inflight_debit
    FROM judged
    GROUP BY balance_key
),

before AS (
    SELECT
        balance_key,
        credit_balance,
        debit_balance,
        inflight_credit_balance,
        inflight_debit_balance
    FROM ledger_eod.balance_snapshots
    WHERE business_date = CAST(:previous_business_date AS date)
        AND kind = 'close'
        AND run_id = CAST(:previous_run_id AS bigint)
),

compared AS (
    SELECT
        CAST(:run_id AS bigint) AS run_id,
        balance_key,
        COALESCE(before.credit_balance, 0) AS previous_credit_balance,
        COALESCE(before.debit_balance, 0) AS previous_debit_balance,
        COALESCE(before.inflight_credit_balance, 0) AS previous_inflight_credit_balance,
        COALESCE(before.inflight_debit_balance, 0) AS previous_inflight_debit_balance,
        COALESCE(sums.credit, 0) AS present_credit_balance,
        COALESCE(sums.debit, 0) AS present_debit_balance,
        COALESCE(sums.inflight_credit, 0) AS present_inflight_credit_balance,
        COALESCE(sums.inflight_debit, 0) AS present_inflight_debit_balance,
        COALESCE(sums.kept_credit, 0) AS kept_credit_balance,
        COALESCE(sums.kept_debit, 0) AS kept_debit_balance,
        COALESCE(sums.kept_inflight_credit, 0) AS kept_inflight_credit_balance,
        COALESCE(sums.kept_inflight_debit, 0) AS kept_inflight_debit_balance
    FROM before
    FULL JOIN sums USING (balance_key)
),

written AS (
    INSERT INTO ledger_eod.new_chain_differences (
        run_id, balance_key, previous_credit_balance, previous_debit_balance, previous_inflight_credit_balance,
        previous_inflight_debit_balance, present_credit_balance, present_debit_balance,
        present_inflight_credit_balance, present_inflight_debit_balance
    )
    SELECT
        run_id,
        balance_key,
        previous_credit_balance,
        previous_debit_balance,
        previous_inflight_credit_balance,
        previous_inflight_debit_balance,
        present_credit_balance,
        present_debit_balance,
        present_inflight_credit_balance,
        present_inflight_debit_balance
    FROM compared
    -- Differences that cancel out are differences.
    WHERE balance_key IN (SELECT written_transactions.balance_key FROM written_transactions)
        OR (
            previous_credit_balance, previous_debit_balance, previous_inflight_credit_balance,
            previous_inflight_debit_balance
        ) IS DISTINCT FROM (
            present_credit_balance, present_debit_balance, present_inflight_credit_balance,
            present_inflight_debit_balance
        )
        OR (
            CAST(:has_same_rows AS boolean) AND (
                previous_credit_balance, previous_debit_balance, previous_inflight_credit_balance,
                previous_inflight_debit_balance
            ) IS DISTINCT FROM (
                kept_credit_balance, kept_debit_balance, kept_inflight_credit_balance, kept_inflight_debit_balance
            )
        )
),

moved AS (
    SELECT
        balance_key,
        sum(credit_balance) AS credit,
        sum(debit_balance) AS debit,
        sum(inflight_credit_balance) AS inflight_credit,
        sum(inflight_debit_balance) AS inflight_debit
    FROM ledger_eod.activity
    WHERE run_id = CAST(:run_id AS bigint)
    GROUP BY balance_key
)

SELECT
    captured.balance_id,
    CAST(row(
        COALESCE(moved.credit, 0), COALESCE(moved.debit, 0), COALESCE(moved.inflight_credit, 0),
        COALESCE(moved.inflight_debit, 0)
    ) AS text) AS counted,
    CAST(row(
        COALESCE(sums.all_credit, 0), COALESCE(sums.all_debit, 0), COALESCE(sums.all_inflight_credit, 0),
        COALESCE(sums.all_inflight_debit, 0)
    ) AS text) AS rows_say
FROM moved
FULL JOIN sums USING (balance_key)
INNER JOIN ledger_eod.captured_balances AS captured USING (balance_key)
WHERE (
    COALESCE(moved.credit, 0), COALESCE(moved.debit, 0), COALESCE(moved.inflight_credit, 0),
    COALESCE(moved.inflight_debit, 0)
) IS DISTINCT FROM (
    COALESCE(sums.all_credit, 0), COALESCE(sums.all_debit, 0), COALESCE(sums.all_inflight_credit, 0),
    COALESCE(sums.all_inflight_debit, 0)
)
ORDER BY balance_key
LIMIT 1
