-- Whether a row is in a cut: it exists for the run that took it. True as well for a row without recorded_xid, which was
-- recorded before this project was installed. NULL for an unknown cut, unless the row has none.
-- xid: the row's recorded_xid. cut: a pg_snapshot.
({xid} IS NULL OR pg_visible_in_snapshot({xid}, {cut}))
