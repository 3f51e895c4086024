"""One retried unit of work each: a connection, one call of ``ledger_db``, a small result."""

from tasks.logs import say_facts_without_traceback

say_facts_without_traceback()
