-- Add to the stored balance rows the effect of the transactions that this database transaction recorded after a key.
-- after_key: only transactions with a higher key. balance_keys, versions: two parallel arrays, the key and version of
-- each balance row as it was read under its lock. Amounts in minor units; each total is credit minus debit.
-- Returns moved_count and written_count. They differ when a row no longer has the version that was read.
-- Cost: this transaction's rows, by the index on recorded_xid.
WITH
-- include postings.postings
,

effects AS MATERIALIZED (  -- a row that nothing changes keeps its version, so that no other write is refused for it
    SELECT
        balance_id,
        sum(credit) AS credit,
        sum(debit) AS debit,
        sum(inflight_credit) AS inflight_credit,
        sum(inflight_debit) AS inflight_debit
    FROM postings
    WHERE recorded_xid = pg_current_xact_id()
        AND transaction_key > CAST(:after_key AS bigint)
        AND balance_id IS NOT NULL
    GROUP BY balance_id
    HAVING bool_or(credit <> 0 OR debit <> 0 OR inflight_credit <> 0 OR inflight_debit <> 0)
),

fence AS (
    SELECT
        balance_key,
        version
    FROM unnest(CAST(:balance_keys AS bigint[]), CAST(:versions AS integer[])) AS read_rows (balance_key, version)
),

written AS (
    UPDATE blnk.balances AS stored
    SET
        credit_balance = stored.credit_balance + effects.credit,
        debit_balance = stored.debit_balance + effects.debit,
        balance = stored.credit_balance + effects.credit - stored.debit_balance - effects.debit,
        inflight_credit_balance = stored.inflight_credit_balance + effects.inflight_credit,
        inflight_debit_balance = stored.inflight_debit_balance + effects.inflight_debit,
        inflight_balance = stored.inflight_credit_balance + effects.inflight_credit
        - stored.inflight_debit_balance - effects.inflight_debit,
        version = fence.version + 1
    FROM effects, fence
    WHERE stored.balance_id = effects.balance_id
        AND stored.id = fence.balance_key
        AND stored.version = fence.version
    RETURNING stored.id
)

SELECT
    (SELECT count(*) FROM effects) AS moved_count,
    (SELECT count(*) FROM written) AS written_count
