-- Whether a transaction settles the hold that it names as its parent, if that is one. status: its status.
{status} IN ('APPLIED', 'VOID')
