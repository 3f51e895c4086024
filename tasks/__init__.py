"""Retried units of work for the flows: each opens a transaction, calls ``ledger_db`` once and returns a small result.

One module per package of ``ledger_db``: ``close``, ``verification``, ``correction``. ``each`` is the loop inside a task
that does several units, ``holds`` keeps two processes from the same work, ``retries`` decides what is tried again and
``logs`` is the form of the log lines.
"""

from tasks.logs import hide_ledger_tracebacks

hide_ledger_tracebacks()
