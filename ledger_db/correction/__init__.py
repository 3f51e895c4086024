"""Reconstruction of balances from their postings, and approved corrections of their stored rows.

Owns: ``ledger_eod.reconstructions``, ``reconstruction_results``, ``corrections``, which only grow once ended.
Reads: the ledger, the newest close, declared opening balances, approvals, open discrepancies, and closes those that a
correction answers. Writes one kind of ledger row: the stored balance, all amounts together, fenced by ``version``, in
a transaction that holds the row's lock and proves it again.
Invariants: what is corrected is exactly what was approved; an approval is used once; no transaction and no snapshot is
ever touched; each correction is logged in its own transaction.
Entry points: ``driver.reconstruct``, ``recalculation.examine``, ``proposals``, ``corrections.correct_balance``.
"""
