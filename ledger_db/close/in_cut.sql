-- Whether a row is in a cut of this cluster, so that it exists for the run that took the cut.
-- Always true for a row without recorded_xid, recorded before this project was installed, and for a
-- row that was there when the first run in this cluster took its cut: in a restored copy such rows
-- carry ids of another cluster. NULL or false for an unknown cut and a row of neither kind.
-- key, xid: the row's key and recorded_xid. cut: a pg_snapshot. Parameter cluster_id: this cluster.
(
    {xid} IS NULL
    OR pg_visible_in_snapshot({xid}, {cut})
    OR EXISTS (
        SELECT
        FROM ledger_eod.cluster_keys AS brought
        WHERE brought.cluster_id = CAST(:cluster_id AS bigint)
            AND brought.block = {key} >> 13
            AND brought.keys @> CAST({key} AS bigint)
    )
)
