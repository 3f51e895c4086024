"""The ledger's schema and every SQL statement of the end-of-day jobs. Knows no orchestrator and no command line.

One package per subject, each with its tables, its statements and its rules; a package imports only those below it::

    attach                    what is added to a ledger: migrations
    correction                reconstruction of balances, approved corrections of stored rows
    verification  history     stored rows against what proves them; balances at any instant
    close                     runs, their cuts, snapshots, certification
    evidence                  what must be provable: approvals
    books                     the reference ledger's tables, and what writes them here
    postings                  the posting rules, and nothing else
    server                    connections, the embedded PostgreSQL, advisory locks
    core                      amounts, calendar, statements: pure values

Beside them: ``settings``, every setting in one place, and ``errors``, what can go wrong, in five families.
"""
