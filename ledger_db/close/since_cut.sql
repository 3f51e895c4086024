-- Whether a row may have been recorded after a cut of this cluster: its id is not below those that were
-- running. Rows that were committed before are among them, so ask also whether a row is counted.
-- NULL for an unknown cut. xid: the row's recorded_xid, whose index serves this. cut: a pg_snapshot.
(
    {xid} >= pg_snapshot_xmin({cut})
    AND {xid} < pg_snapshot_xmax(pg_current_snapshot())
)
