-- The rows of a relation that are in a run's cut and not in its base's cut.
-- relation: has effective_at and recorded_xid. columns: what to select. condition: holds for every row.
-- base: the prefix of the base's two parameters. They are …_closes_at, '-infinity' without a base,
-- and …_cut, NULL without a base. Cost: two index range scans, neither of them over the history.
-- First part: effective since the base closed, at whatever time it was recorded.
SELECT
    {columns}
FROM {relation}
WHERE effective_at >= CAST(:{base}_closes_at AS timestamptz)
    AND
-- include in_cut(xid: recorded_xid; cut: CAST(:cut AS pg_snapshot))
    AND {condition}
UNION ALL
-- Second part, late arrivals: effective before the base closed, recorded after its cut.
SELECT
    {columns}
FROM {relation}
WHERE effective_at < CAST(:{base}_closes_at AS timestamptz)
    AND
-- include after_cut(xid: recorded_xid; cut: CAST(:{base}_cut AS pg_snapshot))
    AND
-- include in_cut(xid: recorded_xid; cut: CAST(:cut AS pg_snapshot))
    AND {condition}
