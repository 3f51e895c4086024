-- Whether a row was recorded after a cut; the first condition is for the index over recorded_xid. NULL for an unknown cut.
-- xid: the row's recorded_xid. cut: a pg_snapshot.
({xid} >= pg_snapshot_xmin({cut}) AND NOT pg_visible_in_snapshot({xid}, {cut}))
