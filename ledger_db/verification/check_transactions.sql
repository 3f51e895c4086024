-- Transactions that no ledger should hold, whatever the stored rows say of them.
-- cut: the verification's. from_closes_at, from_cut: rows in this cut were looked at before; '-infinity' and NULL: none.
-- base_cut: the base close's; a commit that names a queued hold recorded since may only be early, NULL: none is.
-- reference_is_unique: a unique index rules duplicates out. Minor units. Returns cause, transaction_key, currency,
-- stored (what should not be there), proven (what may be), transaction_ids (at most 20).
-- Read-only. Cost: what was recorded since from_cut or is effective after from_closes_at, and those rows' relatives.
WITH counted AS NOT MATERIALIZED (
    SELECT
        t.id,
        t.transaction_id,
        t.source,
        t.destination,
        t.reference,
        t.parent_transaction,
        t.recorded_xid,
-- include postings.effective_at(row: t)
        AS effective_at,
        minor.amount
    FROM blnk.transactions AS t
    CROSS JOIN LATERAL (
-- include postings.minor_amount
    ) AS minor
    WHERE
-- include postings.counts(status: t.status)
),

recorded AS (
-- include close.since_base(
--     relation: counted
--     columns: id, transaction_id, source, destination, reference, parent_transaction, amount
--     condition: TRUE
--     base: from
-- )
),

fresh AS MATERIALIZED (  -- only rows that one of the rules below could be about: most of a ledger's are not kept
    SELECT
        recorded.id AS transaction_key,
        recorded.transaction_id,
        recorded.reference,
        recorded.parent_transaction,
        source.currency AS source_currency,
        destination.currency AS destination_currency,
        recorded.amount
    FROM recorded
    LEFT JOIN blnk.balances AS source ON source.balance_id = recorded.source
    LEFT JOIN blnk.balances AS destination ON destination.balance_id = recorded.destination
    WHERE recorded.parent_transaction IS NOT NULL
        OR source.currency <> destination.currency
        OR NOT CAST(:reference_is_unique AS boolean)
),

parents AS (
    SELECT
        t.id AS parent_key,
        t.transaction_id AS parent_id,
        t.status,
        COALESCE(t.meta_data ->> 'inflight', '') = 'true' AS is_to_hold,  -- as the application marks it
-- include close.after_cut(xid: t.recorded_xid; cut: CAST(:base_cut AS pg_snapshot))
        AS is_recent,
        minor.amount
    FROM blnk.transactions AS t
    CROSS JOIN LATERAL (
-- include postings.minor_amount
    ) AS minor
    WHERE t.transaction_id IN (
            SELECT parent_transaction FROM fresh WHERE parent_transaction IS NOT NULL
        )
        AND (
            t.status = 'INFLIGHT'
            OR
-- include postings.holds_nothing(status: t.status)
        )
),

families AS (  -- every child of those parents, old ones too
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
    JOIN blnk.transactions AS t ON t.parent_transaction = parents.parent_id
    CROSS JOIN LATERAL (
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
    -- A queued row is carried out by its applied copies, up to its amount. What settles it although it is to hold, has a
    -- hold of its own, or beyond its amount, or settles a rejected row, names a parent that holds nothing. It is early
    -- while the queue may still carry the hold out.
    SELECT
        CASE WHEN families.parent_status = 'QUEUED' AND families.is_to_hold AND families.is_recent
            AND NOT family_totals.is_carried_out THEN 'early_commit' ELSE 'orphan_commit' END AS cause,
        families.child_key AS transaction_key,
        families.currency,
        families.amount AS stored,
        0::numeric AS proven,
        ARRAY[families.child_id, families.parent_id] AS transaction_ids
    FROM families
    JOIN family_totals ON family_totals.parent_key = families.parent_key
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
    CROSS JOIN LATERAL (
-- include postings.minor_amount
    ) AS minor
    WHERE NOT CAST(:reference_is_unique AS boolean)
        AND t.reference IN (SELECT reference FROM fresh WHERE reference IS NOT NULL)
        AND
-- include postings.counts(status: t.status)
    GROUP BY t.reference
    HAVING count(*) > 1
),

cross_currencies AS (
    SELECT
        'cross_currency' AS cause,
        transaction_key,
        source_currency || '/' || destination_currency AS currency,
        amount AS stored,
        0::numeric AS proven,
        ARRAY[transaction_id] AS transaction_ids
    FROM fresh
    WHERE source_currency <> destination_currency
)

SELECT cause, transaction_key, currency, stored, proven, transaction_ids FROM over_commits
UNION ALL
SELECT cause, transaction_key, currency, stored, proven, transaction_ids FROM orphan_commits
UNION ALL
SELECT cause, transaction_key, currency, stored, proven, transaction_ids FROM duplicate_references
UNION ALL
SELECT cause, transaction_key, currency, stored, proven, transaction_ids FROM cross_currencies
ORDER BY transaction_key, cause
