"""A run's digests cover the run itself, its samples, the cluster that it is the first close in, and what differed."""

from alembic import op

revision = "0018"
down_revision = "0017"

# Runs that are certified already are digested as they are now.
DIGESTS = """
ALTER TABLE ledger_eod.figure_digests DISABLE TRIGGER refuse_insert;
INSERT INTO ledger_eod.figure_digests (run_id, subject, digest)
WITH certified AS (
    SELECT * FROM ledger_eod.runs WHERE status = 'certified'
),
first_in_cluster AS (
    SELECT closing.run_id, closing.cluster_id
    FROM certified AS closing
    LEFT JOIN ledger_eod.runs AS base ON base.run_id = closing.base_run_id
    WHERE closing.kind = 'close' AND base.cluster_id IS DISTINCT FROM closing.cluster_id
),
lines AS (
    SELECT
        run_id,
        'run' AS subject,
        0 AS part,
        CAST(row(
            run_id, business_date - date '2000-01-01', kind, time_zone, EXTRACT(EPOCH FROM cut_off),
            EXTRACT(EPOCH FROM opens_at), EXTRACT(EPOCH FROM closes_at), cut, system_identifier, cluster_id,
            base_run_id, genesis_run_id, max_transaction_key, caught_up, EXTRACT(EPOCH FROM opened_at),
            EXTRACT(EPOCH FROM planned_at), EXTRACT(EPOCH FROM collected_at), EXTRACT(EPOCH FROM certified_at),
            snapshot_count, checksum
        ) AS text) AS line
    FROM certified
    UNION ALL
    SELECT
        sampled.run_id,
        'samples' AS subject,
        sampled.transaction_key >> 10 AS part,
        CAST(row(sampled.transaction_key, sampled.key_set, sampled.transaction_id) AS text) AS line
    FROM ledger_eod.sampled_rows AS sampled
    INNER JOIN certified ON certified.run_id = sampled.run_id
    UNION ALL
    SELECT
        certified.run_id,
        'chain differences' AS subject,
        differing.balance_key >> 10 AS part,
        CAST(row(
            differing.balance_key, trim_scale(differing.credit_balance), trim_scale(differing.debit_balance),
            trim_scale(differing.inflight_credit_balance), trim_scale(differing.inflight_debit_balance)
        ) AS text) AS line
    FROM ledger_eod.chain_differences AS differing
    INNER JOIN certified ON certified.run_id = differing.genesis_run_id
    UNION ALL
    SELECT
        first_in_cluster.run_id,
        'cluster' AS subject,
        -1 AS part,
        CAST(row(
            clusters.cluster_id, clusters.system_identifier, clusters.cut, clusters.max_transaction_key,
            clusters.max_recorded_xid, EXTRACT(EPOCH FROM clusters.first_seen_at)
        ) AS text) AS line
    FROM first_in_cluster
    INNER JOIN ledger_eod.clusters ON clusters.cluster_id = first_in_cluster.cluster_id
    UNION ALL
    SELECT
        first_in_cluster.run_id,
        'cluster' AS subject,
        cluster_keys.block AS part,
        CAST(row(cluster_keys.block, cluster_keys.keys) AS text) AS line
    FROM first_in_cluster
    INNER JOIN ledger_eod.cluster_keys ON cluster_keys.cluster_id = first_in_cluster.cluster_id
),
parts AS (
    SELECT
        run_id,
        subject,
        part,
        sha256(convert_to(string_agg(line, '' ORDER BY line COLLATE "C"), 'UTF8')) AS digest
    FROM lines
    GROUP BY run_id, subject, part
)
SELECT run_id, subject, encode(sha256(string_agg(digest, CAST('' AS bytea) ORDER BY part)), 'hex')
FROM parts
GROUP BY run_id, subject;
ALTER TABLE ledger_eod.figure_digests ENABLE TRIGGER refuse_insert;
"""


def upgrade() -> None:
    op.execute("SET LOCAL statement_timeout = 0")
    op.execute(DIGESTS)
