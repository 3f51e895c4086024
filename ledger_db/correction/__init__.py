"""Reconstruction of balances from their postings, and approved corrections of their stored rows.

Owns: ``ledger_eod.reconstructions``, ``reconstruction_results``, ``corrections``, which only grow once ended.
Reads: the ledger, the newest close, declared opening balances, approvals. Writes one kind of ledger row: the stored
balance, all amounts together, fenced by ``version``, under the row's lock, proved again in the same transaction.
Invariants: what is corrected is exactly what was approved; an approval is used once; no transaction and no snapshot is
ever touched; each correction is logged in its own transaction.
Entry points: ``driver.reconstruct``, ``recalculation.examine``, ``proposals``, ``corrections.correct_balance``.
"""
