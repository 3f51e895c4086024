-- Keys of a balance's rows that count, were recorded after a cut and are effective before the anchor closed.
-- side: the column with the balance, source or destination. Takes the parameters balance_id, anchor_closes_at,
-- recorded_since, a cut of this cluster or NULL.
-- Cost: what was recorded on the balance since, by its index on recorded_xid.
SELECT recorded.id AS transaction_key
FROM blnk.transactions AS recorded
WHERE recorded.{side} = CAST(:balance_id AS text)
    -- A plan made without the values could take the index on effective_at and read all that lies before the
    -- anchor. With IS TRUE that index has no condition to use.
    AND (
-- include postings.effective_at(row: recorded)
        < CAST(:anchor_closes_at AS timestamptz)
    ) IS TRUE
    AND
-- include postings.counts(status: recorded.status)
    AND
-- include close.since_cut(xid: recorded.recorded_xid; cut: CAST(:recorded_since AS pg_snapshot))
