-- The rows of a piece of older keys: those of older, its keys by block, that are in the run's cut.
SELECT ruled.*
FROM older
CROSS JOIN LATERAL unnest(older.keys) AS spans (span)
CROSS JOIN
    LATERAL (  -- ORDER BY, so that each span stays a look-up: as a join it may read the whole ledger
        SELECT
            ruled_transactions.transaction_key,
            ruled_transactions.source,
            ruled_transactions.destination,
            ruled_transactions.currency,
            ruled_transactions.effective_at,
            ruled_transactions.counts,
            ruled_transactions.exception,
            ruled_transactions.posted,
            ruled_transactions.own_hold,
            ruled_transactions.rate,
            ruled_transactions.row_digest,
            ruled_transactions.row_hash,
            ruled_transactions.settles,
            ruled_transactions.parent_transaction,
            ruled_transactions.hold_effective_at
        FROM ruled_transactions
        WHERE ruled_transactions.transaction_key >= lower(spans.span)
            AND ruled_transactions.transaction_key < upper(spans.span)
            AND
-- include in_cut(
--     key: ruled_transactions.transaction_key
--     xid: ruled_transactions.recorded_xid
--     cut: CAST(:cut AS pg_snapshot)
-- )
        ORDER BY ruled_transactions.transaction_key
    ) AS ruled
