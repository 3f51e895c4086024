"""What must be provable later: today the approvals, which only grow.

Owns: ``ledger_eod.approvals``. Reads nothing else.
Invariants: a decision is kept, also one that must not count, with the reason; nobody approves what they proposed.
Entry points: ``approvals.decide``, ``approvals.approvals_of``, ``approvals.same_person``.
"""
