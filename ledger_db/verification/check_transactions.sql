-- Transactions that no ledger should hold, whether the stored rows agree with them or not.
-- cut, cluster_id: the verification's. from_run_id, from_genesis_run_id, from_max_transaction_key, from_seen,
-- from_is_foreign: the rows that this close's chain counted were checked before, as for close.older_keys.
-- base_run_id, base_genesis_run_id: the base close. A commit that names a queued hold that its chain has not counted
-- may be merely early; without a base none is. reference_is_unique: a unique index rules out duplicates.
-- Returns cause, transaction_key, currency, stored (what is there), proven (what may be there) and transaction_ids, at
-- most 20. Currencies as captured. Amounts in minor units. Read-only.
-- Cost: what the close's chain has not counted, and the relatives of those rows.
WITH countable AS NOT MATERIALIZED (
    SELECT
        t.id AS transaction_key,
        t.transaction_id,
        t.source,
        t.destination,
        t.reference,
        t.parent_transaction,
        t.recorded_xid,
        minor.amount
    FROM blnk.transactions AS t
    CROSS JOIN
        LATERAL (
-- include postings.minor_amount
        ) AS minor
    WHERE
-- include postings.counts(status: t.status)
),

older AS MATERIALIZED (
-- include close.older_keys(base: from)
),

recorded AS (
-- include close.not_counted(
--     relation: countable
--     columns: countable.transaction_key, countable.transaction_id, countable.source, countable.destination, countable.reference, countable.parent_transaction, countable.amount
--     condition: TRUE
--     base: from
--     older: older
-- )
),

fresh AS MATERIALIZED (  -- only rows to which one of the rules below could apply, which is a small part of a ledger
    SELECT
        recorded.transaction_key,
        recorded.transaction_id,
        recorded.reference,
        recorded.parent_transaction,
        recorded.amount,
        COALESCE(source.currency, live_source.currency) AS source_currency,
        COALESCE(destination.currency, live_destination.currency) AS destination_currency
    FROM recorded
    LEFT JOIN ledger_eod.captured_balances AS source ON source.balance_id = recorded.source
    LEFT JOIN ledger_eod.captured_balances AS destination ON destination.balance_id = recorded.destination
    LEFT JOIN blnk.balances AS live_source ON live_source.balance_id = recorded.source
    LEFT JOIN blnk.balances AS live_destination ON live_destination.balance_id = recorded.destination
    WHERE recorded.parent_transaction IS NOT NULL
        OR COALESCE(source.currency, live_source.currency) <> COALESCE(destination.currency, live_destination.currency)
        OR NOT CAST(:reference_is_unique AS boolean)
),

parents AS (
    SELECT
        t.id AS parent_key,
        t.transaction_id AS parent_id,
        t.status,
        minor.amount,
        COALESCE(t.meta_data ->> 'inflight', '') = 'true' AS is_to_hold,  -- the application's mark
        CAST(:base_run_id AS bigint) IS NOT NULL
        AND NOT
-- include close.is_counted(key: t.id; base: base)
            AS is_recent
    FROM blnk.transactions AS t
    CROSS JOIN
        LATERAL (
-- include postings.minor_amount
        ) AS minor
    WHERE t.transaction_id IN (
            SELECT fresh.parent_transaction FROM fresh
            WHERE fresh.parent_transaction IS NOT NULL
        )
        AND (
            t.status = 'INFLIGHT'
            OR
-- include postings.holds_nothing(status: t.status)
        )
),

families AS (  -- every child of those parents, also those recorded before
    SELECT
        parents.parent_key,
        parents.parent_id,
        parents.status AS parent_status,
        parents.is_to_hold,
        parents.is_recent,
        parents.amount AS parent_amount,
        t.id AS child_key,
        t.transaction_id AS child_id,
        t.status,
        t.currency,
        minor.amount,
-- include postings.settles(status: t.status)
            AS settles,
-- include postings.answers_queued(status: t.status)
            AS answers_queued
    FROM parents
    INNER JOIN blnk.transactions AS t ON t.parent_transaction = parents.parent_id
    CROSS JOIN
        LATERAL (
-- include postings.minor_amount
        ) AS minor
    WHERE
-- include postings.settles(status: t.status)
        OR
-- include postings.answers_queued(status: t.status)
),

family_totals AS (
    SELECT
        parent_key,
        parent_id,
        parent_status,
        parent_amount,
        max(currency) AS currency,
        bool_or(status = 'INFLIGHT') AS has_hold,
        bool_or(answers_queued) AS is_carried_out,
        COALESCE(sum(amount) FILTER (WHERE settles), 0) AS settled_amount,
        (array_agg(child_id ORDER BY child_key) FILTER (WHERE settles))[1:20] AS settling_ids
    FROM families
    GROUP BY parent_key, parent_id, parent_status, parent_amount
),

over_commits AS (
    SELECT
        'over_commit' AS cause,
        parent_key AS transaction_key,
        currency,
        settled_amount AS stored,
        parent_amount AS proven,
        parent_id || settling_ids AS transaction_ids
    FROM family_totals
    WHERE parent_status = 'INFLIGHT' AND settled_amount > parent_amount
),

orphan_commits AS (
    -- The queue carries out a queued row by applied copies of it, up to its amount. A settlement names a parent that
    -- holds nothing when the parent is rejected, or is queued and is to be put on hold, has a hold of its own, or is
    -- settled beyond its amount. The settlement is early as long as the queue may still put the parent on hold.
    SELECT
        families.child_key AS transaction_key,
        families.currency,
        families.amount AS stored,
        CAST(0 AS numeric) AS proven,
        CASE
            WHEN families.parent_status = 'QUEUED'
                AND families.is_to_hold
                AND families.is_recent
                AND NOT family_totals.is_carried_out
                THEN 'early_commit'
            ELSE 'orphan_commit'
        END AS cause,
        ARRAY[families.child_id, families.parent_id] AS transaction_ids
    FROM families
    INNER JOIN family_totals ON family_totals.parent_key = families.parent_key
    WHERE families.settles
        AND (
            families.parent_status = 'REJECTED'
            OR (
                families.parent_status = 'QUEUED'
                AND (
                    families.is_to_hold
                    OR families.status = 'VOID'
                    OR family_totals.has_hold
                    OR family_totals.settled_amount > family_totals.parent_amount
                )
            )
        )
),

duplicate_references AS (
    SELECT
        'duplicate_reference' AS cause,
        max(t.id) AS transaction_key,
        max(t.currency) AS currency,
        sum(minor.amount) AS stored,
        (array_agg(minor.amount ORDER BY t.id))[1] AS proven,
        (array_agg(t.transaction_id ORDER BY t.id))[1:20] AS transaction_ids
    FROM blnk.transactions AS t
    CROSS JOIN
        LATERAL (
-- include postings.minor_amount
        ) AS minor
    WHERE NOT CAST(:reference_is_unique AS boolean)
        AND t.reference IN (
            SELECT fresh.reference FROM fresh
            WHERE fresh.reference IS NOT NULL
        )
        AND
-- include postings.counts(status: t.status)
    GROUP BY t.reference
    HAVING count(*) > 1
),

cross_currencies AS (
    SELECT
        'cross_currency' AS cause,
        transaction_key,
        amount AS stored,
        CAST(0 AS numeric) AS proven,
        source_currency || '/' || destination_currency AS currency,
        ARRAY[transaction_id] AS transaction_ids
    FROM fresh
    WHERE source_currency <> destination_currency
)

SELECT
    cause,
    transaction_key,
    currency,
    stored,
    proven,
    transaction_ids
FROM over_commits
UNION ALL
SELECT
    cause,
    transaction_key,
    currency,
    stored,
    proven,
    transaction_ids
FROM orphan_commits
UNION ALL
SELECT
    cause,
    transaction_key,
    currency,
    stored,
    proven,
    transaction_ids
FROM duplicate_references
UNION ALL
SELECT
    cause,
    transaction_key,
    currency,
    stored,
    proven,
    transaction_ids
FROM cross_currencies
ORDER BY transaction_key, cause
