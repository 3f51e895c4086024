-- Keys of a balance's rows that count and are effective before the anchor closed.
-- side: the column with the balance, source or destination. Takes the parameters balance_id and anchor_closes_at.
SELECT own.id AS transaction_key
FROM blnk.transactions AS own
WHERE own.{side} = CAST(:balance_id AS text)
    AND
-- include postings.effective_at(row: own)
    < CAST(:anchor_closes_at AS timestamptz)
    AND
-- include postings.counts(status: own.status)
