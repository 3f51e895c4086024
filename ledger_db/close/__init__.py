"""Runs: a cut, the rows that it counts by their keys, a snapshot of every balance, certified totals.

Owns: ``ledger_eod.runs``, ``run_pieces``, ``run_keys``, ``activity``, ``balance_snapshots``, ``run_totals``,
``run_exceptions``, ``row_digests``, ``row_checksums``, ``later_digests``, ``sampled_rows``, ``figure_digests``,
``prepared_parts``, ``prepared_balances``, ``captured_balances``, ``clusters``, ``cluster_keys``, ``first_closes``,
``chain_differences``, ``new_chains``, ``new_chain_differences``, ``new_chain_transactions``.
Reads: ``blnk.transactions`` through the posting rules, ``blnk.balances``. Locks and writes no ledger row.
Invariants: each row is counted once in a chain, by its key, whatever is done to it later; its cut makes work that is
split, repeated or moved find the same rows; one chain of closes without gaps; at most one snapshot per balance, date
and kind; what is certified is complete, agrees with base and activity, is zero per currency but for itemised
exceptions, and never changes.
Entry points: ``driver.close_day``, ``preparing.prepare_close``, ``opening.open_close``, ``new_chain.open_new_chain``,
``counting``, ``runs``, ``cut``.
"""
