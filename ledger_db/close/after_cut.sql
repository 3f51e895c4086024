-- Whether a row was recorded after a cut of this cluster. NULL or false for an unknown cut.
-- A row with an id that this cluster has not given yet is not.
-- key, xid: the row's key and recorded_xid, first compared so that its index is used.
-- cut: a pg_snapshot. Parameter cluster_id: this cluster.
(
    {xid} >= pg_snapshot_xmin({cut})
    AND {xid} < pg_snapshot_xmax(pg_current_snapshot())
    AND NOT pg_visible_in_snapshot({xid}, {cut})
    AND NOT EXISTS (
        SELECT
        FROM ledger_eod.cluster_keys AS brought
        WHERE brought.cluster_id = CAST(:cluster_id AS bigint)
            AND brought.block = {key} >> 13
            AND brought.keys @> CAST({key} AS bigint)
    )
)
