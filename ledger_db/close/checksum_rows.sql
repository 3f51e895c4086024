-- One run's raw rows by effective business date: how many count, what they post and hold, and an order-free checksum.
-- The rows are those that are in the run's cut and not in its base's, as for collect_activity.
-- closes_at, cut: the run's cut. base_closes_at, base_cut: its base's; '-infinity' and NULL without one.
-- business_dates, opens_at: the calendar as two parallel ascending arrays; an earlier instant falls on the first date.
-- Minor units. The checksum adds up 128 bits of each row's SHA-256, in two halves, so that order and grouping do not
-- matter; metadata, hash chain and recorded_xid may change and are not in it.
-- Read-only. Cost: what became effective or was recorded since the base, two index range scans.
WITH
-- include postings.postings
,

in_cut AS MATERIALIZED (
-- include since_base(
--     relation: provable_transactions
--     columns: transaction_key, effective_at, posted, held
--     condition: effective_at < CAST(:closes_at AS timestamptz)
--     base: base
-- )
),

digested AS (
    SELECT
        (CAST(:business_dates AS date []))[
            GREATEST(width_bucket(in_cut.effective_at, CAST(:opens_at AS timestamptz [])), 1)
        ] AS effective_date,
        in_cut.posted,
        in_cut.held,
        encode(sha256(convert_to(jsonb_build_array(
            t.id, t.transaction_id, t.source, t.destination, t.reference, trim_scale(t.amount),
            trim_scale(t.precise_amount), t.precision, t.currency, t.status,
            EXTRACT(EPOCH FROM t.created_at), EXTRACT(EPOCH FROM t.effective_date), t.parent_transaction
        )::text, 'UTF8')), 'hex') AS digest
    FROM in_cut
    JOIN blnk.transactions AS t ON t.id = in_cut.transaction_key
)

SELECT
    effective_date,
    count(*) AS transaction_count,
    sum(posted) AS posted_amount,
    sum(held) AS held_amount,
    concat_ws(
        ':',
        sum(('x' || substr(digest, 1, 16))::bit(64)::bigint),
        sum(('x' || substr(digest, 17, 16))::bit(64)::bigint)
    ) AS checksum
FROM digested
GROUP BY effective_date
ORDER BY effective_date
