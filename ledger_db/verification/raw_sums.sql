-- What the raw postings of some balances add up to, with their declared opening balances: their proof from genesis.
-- balance_keys, balance_ids: the balances, as parallel arrays. Amounts in minor units. Returns a row for each of them.
-- Read-only. Cost: these balances' histories, by index.
WITH
-- include postings.postings
,

asked AS (
    SELECT
        balance_key,
        balance_id
    FROM
        unnest(CAST(:balance_keys AS bigint[]), CAST(:balance_ids AS text[])) AS asked (balance_key, balance_id)
),

every AS (
    SELECT
        balance_id,
        sum(credit) AS credit,
        sum(debit) AS debit,
        sum(inflight_credit) AS inflight_credit,
        sum(inflight_debit) AS inflight_debit
    FROM postings
    WHERE balance_id = ANY(CAST(:balance_ids AS text[]))
    GROUP BY balance_id
),

opening AS (
-- include newest_declarations(condition: balance_key = ANY(CAST(:balance_keys AS bigint[])))
)

SELECT
    asked.balance_id,
    COALESCE(every.credit, 0) + COALESCE(opening.credit_balance, 0) AS credit_balance,
    COALESCE(every.debit, 0) + COALESCE(opening.debit_balance, 0) AS debit_balance,
    COALESCE(every.inflight_credit, 0) + COALESCE(opening.inflight_credit_balance, 0) AS inflight_credit_balance,
    COALESCE(every.inflight_debit, 0) + COALESCE(opening.inflight_debit_balance, 0) AS inflight_debit_balance
FROM asked
LEFT JOIN every ON every.balance_id = asked.balance_id
LEFT JOIN opening ON opening.balance_key = asked.balance_key
ORDER BY asked.balance_key
