"""The command line ``ledger-eod``: migrate, load, close, verify, correct, read, serve.

Commands are plain functions, one module for each subject; ``application.py`` registers them in the order of the help.
Exit codes are in ``exits.py``: 0 done, 1 failed or refused, 2 misuse, 3 another process is at work, 4 somebody must
approve. Every error is one line on standard error.

Starting must stay fast. Prefect takes a second to import: only the commands that need it do so, inside the function.
The same holds for the parts of ``ledger_db`` that a single command needs.
"""

from deployments.cli.application import main, run

__all__ = ["main", "run"]
