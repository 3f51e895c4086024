-- Declare that a balance already held its stored amounts before its postings could prove them. Returns the declared
-- amounts, or no row when the balance does not exist or its stored row is not credit minus debit.
-- balance_id: the balance. declared_by, reason: who declares it, and why. Amounts in minor units. What is declared is
-- the stored amount minus the raw postings at this statement's instant. Verification then adds it to the postings.
-- Writes one row. Locks no ledger row. Cost: the balance's history, by index.
WITH
-- include postings.postings
,

stored AS (
    SELECT
        balance_id,
        credit_balance,
        debit_balance,
        inflight_credit_balance,
        inflight_debit_balance,
        COALESCE(
            (
                SELECT captured.balance_key FROM ledger_eod.captured_balances AS captured
                WHERE captured.balance_id = balances.balance_id
            ),
            id
        ) AS balance_key
    FROM blnk.balances
    WHERE balance_id = CAST(:balance_id AS text)
        AND balance = credit_balance - debit_balance
        AND inflight_balance = inflight_credit_balance - inflight_debit_balance
),

proven AS (
    SELECT
        COALESCE(sum(credit), 0) AS credit,
        COALESCE(sum(debit), 0) AS debit,
        COALESCE(sum(inflight_credit), 0) AS inflight_credit,
        COALESCE(sum(inflight_debit), 0) AS inflight_debit
    FROM postings
    WHERE balance_id = CAST(:balance_id AS text)
)

INSERT INTO ledger_eod.opening_balances (
    balance_key, credit_balance, debit_balance, inflight_credit_balance, inflight_debit_balance, stored_credit_balance,
    stored_debit_balance, stored_inflight_credit_balance, stored_inflight_debit_balance, declared_by, reason,
    system_identifier
)
SELECT
    stored.balance_key,
    stored.credit_balance - proven.credit AS credit_balance,
    stored.debit_balance - proven.debit AS debit_balance,
    stored.inflight_credit_balance - proven.inflight_credit AS inflight_credit_balance,
    stored.inflight_debit_balance - proven.inflight_debit AS inflight_debit_balance,
    stored.credit_balance AS stored_credit_balance,
    stored.debit_balance AS stored_debit_balance,
    stored.inflight_credit_balance AS stored_inflight_credit_balance,
    stored.inflight_debit_balance AS stored_inflight_debit_balance,
    CAST(:declared_by AS text) AS declared_by,
    CAST(:reason AS text) AS reason,
    (SELECT CAST(control.system_identifier AS text) FROM pg_control_system() AS control) AS system_identifier
FROM stored
CROSS JOIN proven
RETURNING credit_balance, debit_balance, inflight_credit_balance, inflight_debit_balance, declared_at
