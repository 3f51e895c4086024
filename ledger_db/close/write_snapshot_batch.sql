-- Write one run's snapshots of the balances from first_key to last_key: base snapshot plus activity. Minor units.
-- run_id, business_date, kind: the run. base_date: its base run's business date, NULL without one.
-- A second call writes nothing. Locks no ledger row. Cost: three range scans in key order.
WITH eligible AS (
    SELECT balance_key
    FROM ledger_eod.captured_balances
    WHERE balance_key BETWEEN CAST(:first_key AS bigint) AND CAST(:last_key AS bigint)
        AND first_run_id <= CAST(:run_id AS bigint)
),

base AS (
    SELECT
        balance_key,
        last_transaction_key,
        credit_balance,
        debit_balance,
        inflight_credit_balance,
        inflight_debit_balance
    FROM ledger_eod.balance_snapshots
    WHERE business_date = CAST(:base_date AS date)
        AND kind = 'close'
        AND balance_key BETWEEN CAST(:first_key AS bigint) AND CAST(:last_key AS bigint)
),

moved AS (
    SELECT
        balance_key,
        max(last_transaction_key) AS last_transaction_key,
        sum(credit_balance) AS credit_balance,
        sum(debit_balance) AS debit_balance,
        sum(inflight_credit_balance) AS inflight_credit_balance,
        sum(inflight_debit_balance) AS inflight_debit_balance
    FROM ledger_eod.activity
    WHERE run_id = CAST(:run_id AS bigint)
        AND balance_key BETWEEN CAST(:first_key AS bigint) AND CAST(:last_key AS bigint)
    GROUP BY balance_key
)

INSERT INTO ledger_eod.balance_snapshots (
    run_id, balance_key, last_transaction_key, business_date, kind, credit_balance, debit_balance,
    inflight_credit_balance, inflight_debit_balance
)
SELECT
    CAST(:run_id AS bigint) AS run_id,
    eligible.balance_key,
    GREATEST(base.last_transaction_key, moved.last_transaction_key) AS last_transaction_key,
    CAST(:business_date AS date) AS business_date,
    CAST(:kind AS ledger_eod.run_kind) AS kind,
    COALESCE(base.credit_balance, 0) + COALESCE(moved.credit_balance, 0) AS credit_balance,
    COALESCE(base.debit_balance, 0) + COALESCE(moved.debit_balance, 0) AS debit_balance,
    COALESCE(base.inflight_credit_balance, 0) + COALESCE(moved.inflight_credit_balance, 0) AS inflight_credit_balance,
    COALESCE(base.inflight_debit_balance, 0) + COALESCE(moved.inflight_debit_balance, 0) AS inflight_debit_balance
FROM eligible
LEFT JOIN base ON base.balance_key = eligible.balance_key  -- LEFT: idle, zero and new balances get a snapshot too
LEFT JOIN moved ON moved.balance_key = eligible.balance_key
ON CONFLICT (business_date, kind, balance_key) DO NOTHING
