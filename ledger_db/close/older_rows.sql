-- The rows of a piece of older keys: those of the run's older keys in its range that are in the run's cut.
SELECT
    ruled.transaction_key,
    ruled.source,
    ruled.destination,
    ruled.effective_at,
    ruled.counts,
    ruled.exception,
    ruled.posted,
    ruled.own_hold,
    ruled.rate,
    ruled.row_digest,
    ruled.hold_effective_at,
-- include lacks_parent(row: ruled)
        AS lacks_parent
FROM ledger_eod.run_keys AS older
CROSS JOIN LATERAL unnest(older.keys) AS span
INNER JOIN ruled_transactions AS ruled
    ON ruled.transaction_key >= lower(span) AND ruled.transaction_key < upper(span)
WHERE older.run_id = CAST(:run_id AS bigint)
    AND older.key_set = 'older'
    AND older.block BETWEEN CAST(:first_key AS bigint) >> 13 AND CAST(:last_key AS bigint) >> 13
    AND
-- include in_cut(key: ruled.transaction_key; xid: ruled.recorded_xid; cut: CAST(:cut AS pg_snapshot))
