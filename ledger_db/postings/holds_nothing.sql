-- Whether a transaction that a settlement names as its hold holds nothing.
-- A queued one does not hold yet, a rejected one never will. status: its status.
{status} IN ('QUEUED', 'REJECTED')
