-- What known mistakes would have done to the stored rows of some balances, where that is exactly their drift.
-- balance_keys, balance_ids, and as parallel arrays credits, debits, inflight_credits, inflight_debits: stored minus
-- proven.
-- base_run_id, base_genesis_run_id: the base close, NULL without one. cluster_id: this cluster. Amounts in minor units.
-- Each mistake is tried for all of a balance's rows that it could have affected, and for each of them alone.
-- Returns balance_id, explanation, row_count, transaction_ids (at most 20). Three explanations are facts about the
-- balance and are returned whatever the drift: legacy_rate, not_integral and over_committed_hold. Of these, legacy_rate
-- and not_integral are left out when a declared opening balance covers the rows.
-- Read-only. Cost: these balances' histories, by index.
WITH
-- include postings.postings
,

drift AS (
    SELECT
        balance_key,
        balance_id,
        credit,
        debit,
        inflight_credit,
        inflight_debit
    FROM
        unnest(
            CAST(:balance_keys AS bigint[]),
            CAST(:balance_ids AS text[]),
            CAST(:credits AS numeric[]),
            CAST(:debits AS numeric[]),
            CAST(:inflight_credits AS numeric[]),
            CAST(:inflight_debits AS numeric[])
        ) AS drifting (balance_key, balance_id, credit, debit, inflight_credit, inflight_debit)
),

own AS MATERIALIZED (
    SELECT
        postings.balance_id,
        postings.transaction_key,
        postings.exception,
        postings.recorded_xid,
        postings.credit,
        postings.debit,
        postings.inflight_credit,
        postings.inflight_debit,
        t.transaction_id,
        t.reference,
        t.status,
        t.amount,
        t.precise_amount,
        minor.amount AS minor_amount,
        t.parent_transaction,
        t.source,
        t.destination,
        t.destination = postings.balance_id
        AND (
            postings.credit <> 0
            OR postings.inflight_credit <> 0
            OR t.source IS DISTINCT FROM t.destination
        ) AS is_credit_side
    FROM postings
    INNER JOIN blnk.transactions AS t ON t.id = postings.transaction_key
    CROSS JOIN
        LATERAL (
-- include postings.minor_amount
        ) AS minor
    WHERE postings.balance_id = ANY(CAST(:balance_ids AS text[]))
),

unscaled AS (  -- an amount in major units taken for minor units, as the reference's own reconcile does
    SELECT
        balance_id,
        'wrong_scale' AS explanation,
        transaction_key,
        transaction_id,
        sign(credit) * amount - credit AS credit,
        sign(debit) * amount - debit AS debit,
        sign(inflight_credit) * amount - inflight_credit AS inflight_credit,
        sign(inflight_debit) * amount - inflight_debit AS inflight_debit
    FROM own
    WHERE precise_amount IS NULL AND amount <> minor_amount
),

orphans AS (  -- the application took it off a hold, but the row that it names holds nothing, or nothing yet
    SELECT
        own.balance_id,
        CASE
            WHEN parent.status = 'QUEUED'
                AND parent.meta_data ->> 'inflight' = 'true'
                AND CAST(:base_run_id AS bigint) IS NOT NULL
                AND NOT
-- include close.is_counted(key: parent.id; base: base)
                AND NOT EXISTS (
                    SELECT
                    FROM blnk.transactions AS copy
                    WHERE copy.parent_transaction = parent.transaction_id
                        AND
-- include postings.answers_queued(status: copy.status)
                )
                THEN 'early_commit'
            ELSE 'orphan_commit'
        END AS explanation,
        own.transaction_key,
        own.transaction_id,
        0 AS credit,
        0 AS debit,
        CASE WHEN own.is_credit_side THEN -own.minor_amount ELSE 0 END AS inflight_credit,
        CASE WHEN own.is_credit_side THEN 0 ELSE -own.minor_amount END AS inflight_debit
    FROM own
    INNER JOIN blnk.transactions AS parent ON parent.transaction_id = own.parent_transaction
    WHERE
-- include postings.settles(status: own.status)
        AND
-- include postings.holds_nothing(status: parent.status)
),

over_committed AS (  -- more was settled than the hold had, and the stored hold stopped at zero
    SELECT
        own.balance_id,
        'over_commit' AS explanation,
        own.transaction_key,
        own.transaction_id,
        0 AS credit,
        0 AS debit,
        CASE WHEN own.is_credit_side THEN settled.amount - own.minor_amount ELSE 0 END AS inflight_credit,
        CASE WHEN own.is_credit_side THEN 0 ELSE settled.amount - own.minor_amount END AS inflight_debit
    FROM own
    CROSS JOIN
        LATERAL (
            SELECT sum(minor.amount) AS amount
            FROM blnk.transactions AS t
            CROSS JOIN
                LATERAL (
-- include postings.minor_amount
                ) AS minor
            WHERE t.parent_transaction = own.transaction_id
                AND
-- include postings.settles(status: t.status)
        ) AS settled
    WHERE own.status = 'INFLIGHT' AND settled.amount > own.minor_amount
),

repeated AS (  -- one reference on several rows, of which the stored row counts only the first
    SELECT
        balance_id,
        'duplicate_reference' AS explanation,
        transaction_key,
        transaction_id,
        -credit AS credit,
        -debit AS debit,
        -inflight_credit AS inflight_credit,
        -inflight_debit AS inflight_debit
    FROM (
        SELECT
            own.*,
            min(own.transaction_key) OVER (PARTITION BY own.balance_id, own.reference) AS first_key
        FROM own
        WHERE own.reference IS NOT NULL
    ) AS numbered
    WHERE transaction_key > first_key
),

crossing AS (  -- the two sides have different currencies, and the stored row was not changed
    SELECT
        own.balance_id,
        'cross_currency' AS explanation,
        own.transaction_key,
        own.transaction_id,
        -own.credit AS credit,
        -own.debit AS debit,
        -own.inflight_credit AS inflight_credit,
        -own.inflight_debit AS inflight_debit
    FROM own
    WHERE
-- include currency_of(balance_id: own.source)
        <>
-- include currency_of(balance_id: own.destination)
),

mistakes AS (
    SELECT * FROM unscaled
    UNION ALL
    SELECT * FROM orphans
    UNION ALL
    SELECT * FROM over_committed
    UNION ALL
    SELECT * FROM repeated
    UNION ALL
    SELECT * FROM crossing
),

tried AS (  -- all rows of a mistake together, and each row alone
    SELECT
        balance_id,
        explanation,
        count(*) AS row_count,
        (array_agg(transaction_id ORDER BY transaction_key))[1:20] AS transaction_ids,
        sum(credit) AS credit,
        sum(debit) AS debit,
        sum(inflight_credit) AS inflight_credit,
        sum(inflight_debit) AS inflight_debit
    FROM mistakes
    GROUP BY GROUPING SETS ((balance_id, explanation), (balance_id, explanation, transaction_key))
),

opening AS (
    SELECT
        drift.balance_id,
        declared.cut
    FROM (
-- include newest_declarations(condition: balance_key = ANY(CAST(:balance_keys AS bigint[])))
    ) AS declared
    INNER JOIN drift ON drift.balance_key = declared.balance_key
),

unprovable AS (  -- a declared opening balance covers what was recorded before the declaration
    SELECT
        own.balance_id,
        CASE WHEN own.exception LIKE 'legacy_rate%' THEN 'legacy_rate' ELSE 'not_integral' END AS explanation,
        count(*) AS row_count,
        (array_agg(own.transaction_id ORDER BY own.transaction_key))[1:20] AS transaction_ids
    FROM own
    LEFT JOIN opening ON opening.balance_id = own.balance_id
    WHERE (own.exception LIKE 'legacy_rate%' OR own.exception = 'amount_not_integral')
        AND (
            opening.balance_id IS NOT NULL
            AND
-- include close.in_cut(key: own.transaction_key; xid: own.recorded_xid; cut: opening.cut)
        ) IS NOT TRUE
    GROUP BY own.balance_id, explanation
)

SELECT DISTINCT ON (tried.balance_id, tried.explanation)
    tried.balance_id,
    tried.explanation,
    tried.row_count,
    tried.transaction_ids
FROM tried
INNER JOIN drift
    ON drift.balance_id = tried.balance_id
        AND drift.credit = tried.credit
        AND drift.debit = tried.debit
        AND drift.inflight_credit = tried.inflight_credit
        AND drift.inflight_debit = tried.inflight_debit
WHERE tried.credit <> 0 OR tried.debit <> 0 OR tried.inflight_credit <> 0 OR tried.inflight_debit <> 0
UNION ALL
SELECT
    balance_id,
    explanation,
    row_count,
    transaction_ids
FROM unprovable
UNION ALL
SELECT
    balance_id,
    'over_committed_hold' AS explanation,
    count(*) AS row_count,
    (array_agg(transaction_id ORDER BY transaction_key))[1:20] AS transaction_ids
FROM over_committed
GROUP BY balance_id
