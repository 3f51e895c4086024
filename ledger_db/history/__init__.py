"""Balances at any instant, posted and inflight, as known now or as known at an earlier run.

Owns nothing. Reads: ``blnk.balances`` and captured balances, runs, snapshots, activity and sets of keys of ``close``,
raw postings, and in one statement ``ledger_eod.corrections`` of a higher package: which corrections ended a drift.
Invariants: from a snapshot or from source, the answer is the same unless a row was edited after it was counted; what an
earlier run knew is told by keys, never by its cut; a snapshot is a sum of postings and never carries the drift of a
stored row. Writes nothing, locks nothing.
Entry points: ``balance_at.balance_at``.
"""
