"""Compares stored balance rows, closed dates and transactions with what proves them; each difference gets a cause.

Owns: ``ledger_eod.verifications``, ``verification_sums``, ``discrepancies``, ``opening_balances``.
Reads: the ledger, and everything of ``close``. Writes findings only, no ledger row; waits for no writer.
Invariants: a batch compares at one MVCC instant; the same difference another night is the same discrepancy; a
discrepancy is closed only by a verification that looked where it was seen, and no batch of which failed.
Entry points: ``driver.verify``, ``sweeps``, ``drift``, ``closed_dates``, ``causes.judge``, ``discrepancies``.
"""
