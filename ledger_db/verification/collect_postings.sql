-- Sum, for each balance, the postings in a verification's cut, once for all of its batches. Returns nothing; the row
-- count is the number of balances.
-- verification_id, cut: the verification. base_closes_at, base_cut: its base close's cut, '-infinity' and NULL without
-- one. from_genesis: also sum what is in the base's cut; otherwise those sums are zero, because the base's snapshots
-- hold them. balance_ids: only these balances, NULL for all.
-- Postings count whatever their effective instant, also in the future: the stored rows count them too.
-- Amounts in minor units. Locks no ledger row. Cost: what was recorded since the base's cut or is effective after it
-- closed, by index; from genesis two further passes over the ledger, one for each side.
WITH
-- include postings.postings
,

every_credit AS (  -- each side separately: summing a union of both costs 50 % more
    SELECT
        balance_id,
        sum(credit) AS credit,
        sum(inflight_credit) AS inflight_credit
    FROM credits
    WHERE CAST(:from_genesis AS boolean)
        AND
-- include close.in_cut(xid: recorded_xid; cut: CAST(:cut AS pg_snapshot))
        AND balance_id IS NOT NULL
        AND (CAST(:balance_ids AS text[]) IS NULL OR balance_id = ANY(CAST(:balance_ids AS text[])))
    GROUP BY balance_id
),

every_debit AS (
    SELECT
        balance_id,
        sum(debit) AS debit,
        sum(inflight_debit) AS inflight_debit
    FROM debits
    WHERE CAST(:from_genesis AS boolean)
        AND
-- include close.in_cut(xid: recorded_xid; cut: CAST(:cut AS pg_snapshot))
        AND balance_id IS NOT NULL
        AND (CAST(:balance_ids AS text[]) IS NULL OR balance_id = ANY(CAST(:balance_ids AS text[])))
    GROUP BY balance_id
),

everything AS (  -- one sum for each balance; subtracting what is since the base leaves what is in the base's cut
    SELECT
        balance_id,
        COALESCE(every_credit.credit, 0) AS credit,
        COALESCE(every_debit.debit, 0) AS debit,
        COALESCE(every_credit.inflight_credit, 0) AS inflight_credit,
        COALESCE(every_debit.inflight_debit, 0) AS inflight_debit
    FROM every_credit
    FULL JOIN every_debit USING (balance_id)
),

asked AS NOT MATERIALIZED (
    SELECT
        balance_id,
        effective_at,
        recorded_xid,
        credit,
        debit,
        inflight_credit,
        inflight_debit
    FROM postings
    WHERE balance_id IS NOT NULL
        AND (CAST(:balance_ids AS text[]) IS NULL OR balance_id = ANY(CAST(:balance_ids AS text[])))
),

fresh AS (  -- also what is effective later than now: stored rows include it
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
    CAST(:verification_id AS bigint) AS verification_id,
    balances.id AS balance_key,
    summed.based_credit,
    summed.based_debit,
    summed.based_inflight_credit,
    summed.based_inflight_debit,
    summed.credit,
    summed.debit,
    summed.inflight_credit,
    summed.inflight_debit
FROM summed
INNER JOIN blnk.balances ON balances.balance_id = summed.balance_id
