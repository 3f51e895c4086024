-- Whether a row is in a cut, so that it exists for the run that took the cut.
-- Always true for a row without recorded_xid: it was recorded before this project was installed.
-- NULL for an unknown cut and a row with recorded_xid.
-- xid: the row's recorded_xid. cut: a pg_snapshot.
({xid} IS NULL OR pg_visible_in_snapshot({xid}, {cut}))
