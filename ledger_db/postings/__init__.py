"""The posting rules: what a transaction does to its two balances, and when. Nothing else knows them.

Owns: ``postings.sql`` and the parts of it that others include: ``minor_amount``, ``effective_at``, ``counts``,
``settles``, ``holds_nothing``, ``answers_queued``, and the two variants of a legacy ``rate``.
Reads: ``blnk.transactions``. Writes nothing.
Invariants: everything that sums postings includes these texts; an amount that is not a whole number of minor units is
an exception, never rounded; lists of statuses and the effective instant stand in this package only (``make lint``).
Entry points: ``rules.statement``, ``rules.STATUSES``, ``rules.EFFECTIVE_AT``.
"""
