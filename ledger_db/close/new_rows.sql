-- The rows of a piece of new keys: those in its range that are in the run's cut.
SELECT
    ruled.transaction_key,
    ruled.source,
    ruled.destination,
    ruled.currency,
    ruled.effective_at,
    ruled.counts,
    ruled.exception,
    ruled.posted,
    ruled.own_hold,
    ruled.rate,
    ruled.row_digest,
    ruled.row_hash,
    ruled.settles,
    ruled.parent_transaction,
    ruled.hold_effective_at
FROM ruled_transactions AS ruled
WHERE ruled.transaction_key BETWEEN CAST(:first_key AS bigint) AND CAST(:last_key AS bigint)
    AND
-- include in_cut(key: ruled.transaction_key; xid: ruled.recorded_xid; cut: CAST(:cut AS pg_snapshot))
