-- The SHA-256 of what a run stored besides its snapshots and its activity, for each subject: the run itself, its
-- exceptions, totals, keys, pieces and samples, the balances that it captured first, of a close those that other runs
-- since its base captured or found gone, the cluster that it is the first close in, the new chain that it begins, with
-- its approval, and what an upgrade found to differ in its chain. A line says all of a row, in a text that no two rows
-- share.
-- run_id: the run. Returns subject and digest of those that have rows. Read-only. Cost: one pass over these rows
-- and over the captured balances.
WITH first_in_cluster AS (  -- the run, if it is a close and its base is of another cluster
    SELECT closing.cluster_id
    FROM ledger_eod.runs AS closing
    LEFT JOIN ledger_eod.runs AS base ON base.run_id = closing.base_run_id
    WHERE closing.run_id = CAST(:run_id AS bigint)
        AND closing.kind = 'close'
        AND base.cluster_id IS DISTINCT FROM closing.cluster_id
),

lines AS (
    SELECT
        'exceptions' AS subject,
        transaction_key >> 10 AS part,
        CAST(row(
            transaction_key, currency, piece, cause, trim_scale(difference), trim_scale(inflight_difference)
        ) AS text) AS line
    FROM ledger_eod.run_exceptions
    WHERE run_id = CAST(:run_id AS bigint)
    UNION ALL
    SELECT
        'totals' AS subject,
        0 AS part,
        CAST(row(
            currency, balance_count, trim_scale(credit_balance), trim_scale(debit_balance),
            trim_scale(inflight_credit_balance), trim_scale(inflight_debit_balance), trim_scale(itemised_difference),
            trim_scale(itemised_inflight_difference)
        ) AS text) AS line
    FROM ledger_eod.run_totals
    WHERE run_id = CAST(:run_id AS bigint)
    UNION ALL
    SELECT
        'keys' AS subject,
        block AS part,
        CAST(row(key_set, piece, effective_date - date '2000-01-01', block, keys) AS text) AS line
    FROM ledger_eod.run_keys
    WHERE run_id = CAST(:run_id AS bigint)
    UNION ALL
    SELECT
        'keys' AS subject,
        -1 AS part,
        CAST(row(pending_from_run_id) AS text) AS line
    FROM ledger_eod.runs
    WHERE run_id = CAST(:run_id AS bigint) AND pending_from_run_id IS NOT NULL
    UNION ALL
    SELECT
        'pieces' AS subject,
        0 AS part,
        CAST(row(
            piece, work, first_key, last_key, counted_count, settled_count, pending_count, gone_count
        ) AS text) AS line
    FROM ledger_eod.run_pieces
    WHERE run_id = CAST(:run_id AS bigint)
    UNION ALL
    SELECT
        'captured balances' AS subject,
        balance_key >> 10 AS part,
        CAST(row(balance_key, balance_id, currency) AS text) AS line
    FROM ledger_eod.captured_balances
    WHERE first_run_id = CAST(:run_id AS bigint)
    UNION ALL
    SELECT
        'balances since the base' AS subject,
        captured.balance_key >> 10 AS part,
        CAST(row(
            captured.balance_key, captured.balance_id, captured.currency, captured.first_run_id,
            CASE WHEN captured.gone_run_id <= closing.run_id THEN captured.gone_run_id END
        ) AS text) AS line
    FROM ledger_eod.runs AS closing
    INNER JOIN ledger_eod.captured_balances AS captured  -- by runs that were given up, too
        ON (
            captured.first_run_id < closing.run_id
            AND (closing.base_run_id IS NULL OR captured.first_run_id > closing.base_run_id)
        )
        OR (
            captured.gone_run_id <= closing.run_id
            AND (closing.base_run_id IS NULL OR captured.gone_run_id > closing.base_run_id)
        )
    WHERE closing.run_id = CAST(:run_id AS bigint) AND closing.kind = 'close'
    UNION ALL
    SELECT
        'new chain' AS subject,
        -1 AS part,
        CAST(row(
            run_id, previous_run_id, reason, proposed_by, EXTRACT(EPOCH FROM proposed_at), has_same_rows, gone_count,
            (
                SELECT array_agg(day - date '2000-01-01' ORDER BY position)
                FROM unnest(changed_dates) WITH ORDINALITY AS changed (day, position)
            )
        ) AS text) AS line
    FROM ledger_eod.new_chains
    WHERE run_id = CAST(:run_id AS bigint)
    UNION ALL
    SELECT
        'new chain' AS subject,
        balance_key >> 10 AS part,
        CAST(row(
            balance_key, trim_scale(previous_credit_balance), trim_scale(previous_debit_balance),
            trim_scale(previous_inflight_credit_balance), trim_scale(previous_inflight_debit_balance),
            trim_scale(present_credit_balance), trim_scale(present_debit_balance),
            trim_scale(present_inflight_credit_balance), trim_scale(present_inflight_debit_balance)
        ) AS text) AS line
    FROM ledger_eod.new_chain_differences
    WHERE run_id = CAST(:run_id AS bigint)
    UNION ALL
    SELECT
        'new chain' AS subject,
        balance_key >> 10 AS part,
        CAST(row(
            balance_key, transaction_key, is_added, trim_scale(credit_balance), trim_scale(debit_balance),
            trim_scale(inflight_credit_balance), trim_scale(inflight_debit_balance)
        ) AS text) AS line
    FROM ledger_eod.new_chain_transactions
    WHERE run_id = CAST(:run_id AS bigint)
    UNION ALL
    SELECT
        'approval' AS subject,
        0 AS part,
        CAST(row(run_id, figures_hash, approval_id) AS text) AS line
    FROM ledger_eod.new_chains
    WHERE run_id = CAST(:run_id AS bigint) AND approval_id IS NOT NULL
    UNION ALL
    SELECT
        'run' AS subject,
        0 AS part,
        CAST(row(
            run_id, business_date - date '2000-01-01', kind, time_zone, EXTRACT(EPOCH FROM cut_off),
            EXTRACT(EPOCH FROM opens_at), EXTRACT(EPOCH FROM closes_at), cut, system_identifier, cluster_id,
            base_run_id, genesis_run_id, max_transaction_key, caught_up, EXTRACT(EPOCH FROM opened_at),
            EXTRACT(EPOCH FROM planned_at), EXTRACT(EPOCH FROM collected_at), EXTRACT(EPOCH FROM certified_at),
            snapshot_count, checksum
        ) AS text) AS line
    FROM ledger_eod.runs
    WHERE run_id = CAST(:run_id AS bigint)
    UNION ALL
    SELECT
        'samples' AS subject,
        transaction_key >> 10 AS part,
        CAST(row(transaction_key, key_set, transaction_id) AS text) AS line
    FROM ledger_eod.sampled_rows
    WHERE run_id = CAST(:run_id AS bigint)
    UNION ALL
    SELECT
        'chain differences' AS subject,
        balance_key >> 10 AS part,
        CAST(row(
            balance_key, trim_scale(credit_balance), trim_scale(debit_balance), trim_scale(inflight_credit_balance),
            trim_scale(inflight_debit_balance)
        ) AS text) AS line
    FROM ledger_eod.chain_differences
    WHERE genesis_run_id = CAST(:run_id AS bigint)
    UNION ALL
    SELECT
        'cluster' AS subject,
        -1 AS part,
        CAST(row(
            clusters.cluster_id, clusters.system_identifier, clusters.cut, clusters.max_transaction_key,
            clusters.max_recorded_xid, EXTRACT(EPOCH FROM clusters.first_seen_at)
        ) AS text) || COALESCE(CAST(clusters.transactions_oid AS text), '') AS line
    FROM first_in_cluster
    INNER JOIN ledger_eod.clusters ON clusters.cluster_id = first_in_cluster.cluster_id
    UNION ALL
    SELECT
        'cluster' AS subject,
        cluster_keys.block AS part,
        CAST(row(cluster_keys.block, cluster_keys.keys) AS text) AS line
    FROM first_in_cluster
    INNER JOIN ledger_eod.cluster_keys ON cluster_keys.cluster_id = first_in_cluster.cluster_id
),

parts AS (
    SELECT
        subject,
        part,
        sha256(convert_to(string_agg(line, '' ORDER BY line COLLATE "C"), 'UTF8')) AS digest
    FROM lines
    GROUP BY subject, part
)

SELECT
    subject,
    encode(sha256(string_agg(digest, CAST('' AS bytea) ORDER BY part)), 'hex') AS digest
FROM parts
GROUP BY subject
