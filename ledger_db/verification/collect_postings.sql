-- Sum, per balance, the postings in a verification's cut, once for all of its batches. Returns the number of balances.
-- verification_id, cut: the verification. base_closes_at, base_cut: its base close; '-infinity' and NULL without one.
-- from_genesis: also what is in the base's cut; otherwise that is zero, since the base's snapshots hold it.
-- balance_ids: only these balances, NULL for all. Any effective instant counts, the future too: stored rows have it.
-- Minor units. Locks no ledger row. Cost: what was recorded since the base's cut or is effective after it closed, by
-- index; from genesis two passes over the ledger more, one a side.
WITH
-- include postings.postings
,

every_credit AS (  -- each side by itself: summing a union of both costs 50 % more
    SELECT balance_id, sum(credit) AS credit, sum(inflight_credit) AS inflight_credit
    FROM credits
    WHERE CAST(:from_genesis AS boolean)
        AND
-- include close.in_cut(xid: recorded_xid; cut: CAST(:cut AS pg_snapshot))
        AND balance_id IS NOT NULL
        AND (CAST(:balance_ids AS text []) IS NULL OR balance_id = ANY(CAST(:balance_ids AS text [])))
    GROUP BY balance_id
),

every_debit AS (
    SELECT balance_id, sum(debit) AS debit, sum(inflight_debit) AS inflight_debit
    FROM debits
    WHERE CAST(:from_genesis AS boolean)
        AND
-- include close.in_cut(xid: recorded_xid; cut: CAST(:cut AS pg_snapshot))
        AND balance_id IS NOT NULL
        AND (CAST(:balance_ids AS text []) IS NULL OR balance_id = ANY(CAST(:balance_ids AS text [])))
    GROUP BY balance_id
),

everything AS (  -- one plain sum a balance: what is in the base's cut is the rest of it
    SELECT
        balance_id,
        COALESCE(credit, 0) AS credit,
        COALESCE(debit, 0) AS debit,
        COALESCE(inflight_credit, 0) AS inflight_credit,
        COALESCE(inflight_debit, 0) AS inflight_debit
    FROM every_credit
    FULL JOIN every_debit USING (balance_id)
),

asked AS NOT MATERIALIZED (
    SELECT balance_id, effective_at, recorded_xid, credit, debit, inflight_credit, inflight_debit
    FROM postings
    WHERE balance_id IS NOT NULL
        AND (CAST(:balance_ids AS text []) IS NULL OR balance_id = ANY(CAST(:balance_ids AS text [])))
),

fresh AS (  -- effective later than now, too: stored rows have it
-- include close.since_base(
--     relation: asked
--     columns: balance_id, credit, debit, inflight_credit, inflight_debit
--     condition: TRUE
--     base: base
-- )
),

since AS (
    SELECT
        balance_id,
        sum(credit) AS credit,
        sum(debit) AS debit,
        sum(inflight_credit) AS inflight_credit,
        sum(inflight_debit) AS inflight_debit
    FROM fresh
    GROUP BY balance_id
),

summed AS (
    SELECT
        balance_id,
        COALESCE(everything.credit - COALESCE(since.credit, 0), 0) AS based_credit,
        COALESCE(everything.debit - COALESCE(since.debit, 0), 0) AS based_debit,
        COALESCE(everything.inflight_credit - COALESCE(since.inflight_credit, 0), 0) AS based_inflight_credit,
        COALESCE(everything.inflight_debit - COALESCE(since.inflight_debit, 0), 0) AS based_inflight_debit,
        COALESCE(since.credit, 0) AS credit,
        COALESCE(since.debit, 0) AS debit,
        COALESCE(since.inflight_credit, 0) AS inflight_credit,
        COALESCE(since.inflight_debit, 0) AS inflight_debit
    FROM everything
    FULL JOIN since USING (balance_id)
)

INSERT INTO ledger_eod.verification_sums (
    verification_id, balance_key, based_credit_balance, based_debit_balance, based_inflight_credit_balance,
    based_inflight_debit_balance, credit_balance, debit_balance, inflight_credit_balance, inflight_debit_balance
)
SELECT
    CAST(:verification_id AS bigint),
    balances.id,
    summed.based_credit,
    summed.based_debit,
    summed.based_inflight_credit,
    summed.based_inflight_debit,
    summed.credit,
    summed.debit,
    summed.inflight_credit,
    summed.inflight_debit
FROM summed
JOIN blnk.balances ON balances.balance_id = summed.balance_id
