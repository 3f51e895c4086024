-- How many of the rows that a run counted for some business dates are gone: their keys are in its set, and not in the
-- ledger. Returns effective_date and missing_count, where some are.
-- run_id: the run. dates: the business dates. Read-only. Cost: the keys of these dates, by the primary key alone.
WITH spans AS (
    SELECT
        effective_date,
        unnest(keys) AS span
    FROM ledger_eod.run_keys
    WHERE run_id = CAST(:run_id AS bigint) AND key_set = 'counted' AND effective_date = ANY(CAST(:dates AS date[]))
),

missing AS (
    SELECT
        spans.effective_date,
        sum(upper(spans.span) - lower(spans.span) - (
            SELECT count(*) FROM blnk.transactions AS t
            WHERE t.id >= lower(spans.span) AND t.id < upper(spans.span)
        )) AS missing_count
    FROM spans
    GROUP BY spans.effective_date
)

SELECT
    effective_date,
    missing_count
FROM missing
WHERE missing_count > 0
ORDER BY effective_date
