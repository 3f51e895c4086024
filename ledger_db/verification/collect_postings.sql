-- Sum, for each balance, the postings in a verification's cut, once for all of its batches. Returns nothing; the row
-- count is the number of balances.
-- verification_id, cut, cluster_id: the verification. base_run_id, base_genesis_run_id, base_max_transaction_key,
-- base_seen, base_is_foreign: its base close, as for close.older_keys. from_genesis: also sum what the base's snapshots
-- hold; otherwise those sums are zero. balance_ids: only these balances, NULL for all.
-- Postings count whatever their effective instant, also in the future: the stored rows count them too.
-- Amounts in minor units. Locks no ledger row. Cost: what the base's chain has not counted, by index; from genesis two
-- further passes over the ledger, one for each side.
WITH
-- include postings.postings
,

every_credit AS (  -- each side separately: summing a union of both costs 50 % more
    SELECT
        credits.balance_id,
        sum(credits.credit) AS credit,
        sum(credits.inflight_credit) AS inflight_credit
    FROM credits
    WHERE CAST(:from_genesis AS boolean)
        AND
-- include close.in_cut(key: credits.transaction_key; xid: credits.recorded_xid; cut: CAST(:cut AS pg_snapshot))
        AND credits.balance_id IS NOT NULL
        AND (CAST(:balance_ids AS text[]) IS NULL OR credits.balance_id = ANY(CAST(:balance_ids AS text[])))
    GROUP BY credits.balance_id
),

every_debit AS (
    SELECT
        debits.balance_id,
        sum(debits.debit) AS debit,
        sum(debits.inflight_debit) AS inflight_debit
    FROM debits
    WHERE CAST(:from_genesis AS boolean)
        AND
-- include close.in_cut(key: debits.transaction_key; xid: debits.recorded_xid; cut: CAST(:cut AS pg_snapshot))
        AND debits.balance_id IS NOT NULL
        AND (CAST(:balance_ids AS text[]) IS NULL OR debits.balance_id = ANY(CAST(:balance_ids AS text[])))
    GROUP BY debits.balance_id
),

everything AS (  -- one sum for each balance; subtracting what is since the base leaves what the base's snapshots hold
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
        transaction_key,
        balance_id,
        recorded_xid,
        is_release,
        credit,
        debit,
        inflight_credit,
        inflight_debit
    FROM postings
    WHERE balance_id IS NOT NULL
        AND (CAST(:balance_ids AS text[]) IS NULL OR balance_id = ANY(CAST(:balance_ids AS text[])))
),

older AS MATERIALIZED (
-- include close.older_keys(base: base)
),

waiting AS MATERIALIZED (  -- the base's chain counted these, and did not release their holds yet
    SELECT unnest(run_keys.keys) AS span
    FROM ledger_eod.run_keys
    WHERE run_keys.run_id = CAST(:base_run_id AS bigint) AND run_keys.key_set = 'waiting'
),

fresh AS (  -- also what is effective later than now: stored rows include it
-- include close.not_counted(
--     relation: asked
--     columns: asked.balance_id, asked.credit, asked.debit, asked.inflight_credit, asked.inflight_debit
--     condition: TRUE
--     base: base
--     older: older
-- )
    UNION ALL
    SELECT
        releases.balance_id,
        0 AS credit,
        0 AS debit,
        releases.inflight_credit,
        releases.inflight_debit
    FROM waiting
    CROSS JOIN
        LATERAL (  -- ORDER BY, so that each span stays a look-up: as a join it may read the whole ledger
            SELECT
                asked.balance_id,
                asked.inflight_credit,
                asked.inflight_debit
            FROM asked
            WHERE asked.transaction_key >= lower(waiting.span)
                AND asked.transaction_key < upper(waiting.span)
                AND asked.is_release
                AND
-- include close.in_cut(key: asked.transaction_key; xid: asked.recorded_xid; cut: CAST(:cut AS pg_snapshot))
            ORDER BY asked.transaction_key
        ) AS releases
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
    COALESCE(captured.balance_key, balances.id) AS balance_key,
    summed.based_credit,
    summed.based_debit,
    summed.based_inflight_credit,
    summed.based_inflight_debit,
    summed.credit,
    summed.debit,
    summed.inflight_credit,
    summed.inflight_debit
FROM summed
LEFT JOIN ledger_eod.captured_balances AS captured ON captured.balance_id = summed.balance_id
LEFT JOIN blnk.balances  -- not captured yet, and no captured one that was given another id
    ON balances.balance_id = CASE WHEN captured.balance_key IS NULL THEN summed.balance_id END
        AND NOT EXISTS (
            SELECT
            FROM ledger_eod.captured_balances AS renamed
            WHERE renamed.balance_key = balances.id
        )
WHERE captured.balance_key IS NOT NULL OR balances.id IS NOT NULL
