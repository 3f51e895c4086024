-- One SHA-256 over one run's snapshots in key order. It is a digest of the digests of blocks of 10,000 keys, so that
-- memory does not grow with the ledger. NULL for a run without rows. No transaction is 0, a transaction with key 0 +0.
-- run_id, business_date, kind: the run. Read-only. Cost: one pass in primary-key order.
WITH blocks AS (
    SELECT
        balance_key / 10000 AS block,
        encode(sha256(convert_to(string_agg(concat_ws(
            ',', balance_key, credit_balance, debit_balance, inflight_credit_balance, inflight_debit_balance,
            CASE last_transaction_key WHEN 0 THEN '+0' ELSE CAST(COALESCE(last_transaction_key, 0) AS text) END
        ), E'\n' ORDER BY balance_key), 'UTF8')), 'hex') AS digest
    FROM ledger_eod.balance_snapshots
    WHERE business_date = CAST(:business_date AS date)
        AND kind = CAST(:kind AS ledger_eod.run_kind)
        AND run_id = CAST(:run_id AS bigint)
    GROUP BY block
)

SELECT encode(sha256(convert_to(string_agg(digest, E'\n' ORDER BY block), 'UTF8')), 'hex') AS checksum
FROM blocks
