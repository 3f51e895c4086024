-- Whether a child row is the queue's answer to a queued hold: put on hold, or rejected.
-- status: the child's status.
{status} IN ('INFLIGHT', 'REJECTED')
