-- Whether a transaction counts at all. Queued, scheduled and rejected ones never do.
-- status: its status.
COALESCE({status}, '') NOT IN ('QUEUED', 'SCHEDULED', 'REJECTED')
