-- Whether a child is the queue's answer to a queued hold: carried out as a hold, or rejected. status: the child's status.
{status} IN ('INFLIGHT', 'REJECTED')
