-- Whether a transaction settles the hold that it names as its parent, provided that parent is a hold.
-- status: the transaction's status.
{status} IN ('APPLIED', 'VOID')
