-- Whether a transaction that is named as a hold's holds nothing: queued, so not yet, or rejected, so never.
-- status: its status.
{status} IN ('QUEUED', 'REJECTED')
