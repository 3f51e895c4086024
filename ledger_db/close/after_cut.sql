-- Whether a row was recorded after a cut. NULL for an unknown cut.
-- xid: the row's recorded_xid, first compared so that its index is used. cut: a pg_snapshot.
(
    {xid} >= pg_snapshot_xmin({cut})
    AND NOT pg_visible_in_snapshot({xid}, {cut})
)
