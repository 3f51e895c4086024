"""Pure values, and the loader of statements; imports no table and no connection.

Owns: nothing in the database. Reads: ``.sql`` files of the packages.
Invariants: an amount is an integer or an exact Decimal, never a float; only ``amounts`` lists the columns of amounts;
consecutive business dates share their boundary, so each instant is in exactly one date.
Entry points: ``amounts``, ``calendar.BusinessCalendar``, ``key_ranges.KeyRange``, ``metadata``, ``statements.load``.
"""
