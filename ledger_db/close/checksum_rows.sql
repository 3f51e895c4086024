-- One run's raw rows by effective business date: their number, what they post and hold, and a checksum of them.
-- The rows are those in the run's cut and not in its base's cut, as for collect_activity.
-- closes_at, cut: the run's cut. base_closes_at, base_cut: its base's cut, '-infinity' and NULL without a base.
-- business_dates, opens_at: the calendar as two parallel ascending arrays. An instant before the first belongs to it.
-- posted_amount, held_amount: minor units, unsigned for postings and holds, negative for what leaves a hold.
-- checksum: the sum of 128 bits of each row's SHA-256, as two halves, so that order and grouping do not matter.
-- It leaves out what may change later: metadata, hash chain and recorded_xid.
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
        in_cut.posted,
        in_cut.held,
        (CAST(:business_dates AS date[]))[
            GREATEST(width_bucket(in_cut.effective_at, CAST(:opens_at AS timestamptz[])), 1)
        ] AS effective_date,
        encode(sha256(convert_to(CAST(jsonb_build_array(
            t.id, t.transaction_id, t.source, t.destination, t.reference, trim_scale(t.amount),
            trim_scale(t.precise_amount), t.precision, t.currency, t.status,
            EXTRACT(EPOCH FROM t.created_at), EXTRACT(EPOCH FROM t.effective_date), t.parent_transaction
        ) AS text), 'UTF8')), 'hex') AS digest
    FROM in_cut
    INNER JOIN blnk.transactions AS t ON t.id = in_cut.transaction_key
)

SELECT
    effective_date,
    count(*) AS transaction_count,
    sum(posted) AS posted_amount,
    sum(held) AS held_amount,
    concat_ws(
        ':',
        sum(CAST(CAST(('x' || substr(digest, 1, 16)) AS bit(64)) AS bigint)),
        sum(CAST(CAST(('x' || substr(digest, 17, 16)) AS bit(64)) AS bigint))
    ) AS checksum
FROM digested
GROUP BY effective_date
ORDER BY effective_date
