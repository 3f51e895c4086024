"""Small programs that show what the jobs do to balances. Each prints what is committed beside it, ``NAME.out``.

``python -m examples.NAME`` runs one, on a database of its own in the embedded PostgreSQL. Dates, ids and amounts are
fixed and nothing printed depends on the clock, so ``tests/examples/test_examples.py`` compares the output as it is.
"""
