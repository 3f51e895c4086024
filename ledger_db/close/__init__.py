"""Runs: a cut, the activity that it has and its base has not, a snapshot of every balance, certified totals.

Owns: ``ledger_eod.runs``, ``activity``, ``balance_snapshots``, ``run_totals``, ``run_exceptions``, ``row_checksums``.
Reads: ``blnk.transactions`` through the posting rules, ``blnk.balances``. Locks and writes no ledger row.
Invariants: what belongs to a run is a function of its cut and each row, so work that is split, repeated or moved finds
the same rows; one chain of closes without gaps; at most one snapshot per balance, date and kind; what is certified is
complete, agrees with base and activity, and is zero per currency but for itemised exceptions, and never changes.
Entry points: ``driver.close_day``, ``opening.open_close``, ``runs``, ``cut``.
"""
