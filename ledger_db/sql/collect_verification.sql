-- Sum, per balance, the postings in a verification's cut, once for all of its batches. Returns the number of balances.
-- verification_id, cut: the verification. from_closes_at, from_cut: postings in this cut are left out, since the base's
-- snapshots hold them; '-infinity' and NULL: none are. base_closes_at, base_cut: where the sums are split, likewise.
-- balance_ids: only these balances, NULL for all. Any effective instant counts, the future too: stored rows have it.
-- Minor units. Locks no ledger row. Cost: what was recorded since from_cut or is effective after from_closes_at, by index.
WITH
-- include postings
,

known AS (
    -- effective since the base closed or later than now, whenever it was recorded
    SELECT balance_id, effective_at, recorded_xid, credit, debit, inflight_credit, inflight_debit
    FROM postings
    WHERE effective_at >= CAST(:from_closes_at AS timestamptz)
        AND (recorded_xid IS NULL OR pg_visible_in_snapshot(recorded_xid, CAST(:cut AS pg_snapshot)))
        AND balance_id IS NOT NULL
        AND (CAST(:balance_ids AS text []) IS NULL OR balance_id = ANY(CAST(:balance_ids AS text [])))
    UNION ALL
    -- late arrivals: effective before the base closed, recorded after its cut
    SELECT balance_id, effective_at, recorded_xid, credit, debit, inflight_credit, inflight_debit
    FROM postings
    WHERE effective_at < CAST(:from_closes_at AS timestamptz)
        AND recorded_xid >= pg_snapshot_xmin(CAST(:from_cut AS pg_snapshot))
        AND NOT pg_visible_in_snapshot(recorded_xid, CAST(:from_cut AS pg_snapshot))
        AND pg_visible_in_snapshot(recorded_xid, CAST(:cut AS pg_snapshot))
        AND balance_id IS NOT NULL
        AND (CAST(:balance_ids AS text []) IS NULL OR balance_id = ANY(CAST(:balance_ids AS text [])))
),

split AS (
    SELECT
        balance_id,
        credit,
        debit,
        inflight_credit,
        inflight_debit,
        effective_at < CAST(:base_closes_at AS timestamptz)
        AND (recorded_xid IS NULL OR pg_visible_in_snapshot(recorded_xid, CAST(:base_cut AS pg_snapshot))) AS is_based
    FROM known
),

summed AS (  -- before the join: it then meets each balance once
    SELECT
        balance_id,
        COALESCE(sum(credit) FILTER (WHERE is_based), 0) AS based_credit,
        COALESCE(sum(debit) FILTER (WHERE is_based), 0) AS based_debit,
        COALESCE(sum(inflight_credit) FILTER (WHERE is_based), 0) AS based_inflight_credit,
        COALESCE(sum(inflight_debit) FILTER (WHERE is_based), 0) AS based_inflight_debit,
        COALESCE(sum(credit) FILTER (WHERE NOT is_based), 0) AS credit,
        COALESCE(sum(debit) FILTER (WHERE NOT is_based), 0) AS debit,
        COALESCE(sum(inflight_credit) FILTER (WHERE NOT is_based), 0) AS inflight_credit,
        COALESCE(sum(inflight_debit) FILTER (WHERE NOT is_based), 0) AS inflight_debit
    FROM split
    GROUP BY balance_id
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
