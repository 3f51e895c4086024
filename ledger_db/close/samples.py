"""Samples of the rows that a run looked at: they tell whether the ledger's table still has them under their keys.

A table that is made anew without its ids gives every row another key, and all of them would be counted again.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import Connection, Row

from ledger_db.close.cut import base_parameters
from ledger_db.close.runs import Run
from ledger_db.errors import Hint, TableMadeAnew
from ledger_db.postings.rules import statement


def require_same_rows(connection: Connection, base: Run | None) -> None:
    """Refuse to go on from a close whose rows have other keys now. A single row that is gone is no reason.

    Raises:
        TableMadeAnew: a sampled key stands for another transaction, or most of the counted ones are gone.
    """
    if base is None:
        return
    found = _compare_samples(connection, base)
    other = _other_rows(found)
    if other is None and found.missing_count > 1 and 2 * found.missing_count > found.counted_count:
        other = (
            f"of the {found.counted_count} rows of blnk.transactions that were counted last and are compared, "
            f"{found.missing_count} are gone"
        )
    if other is not None:
        raise TableMadeAnew(
            f"{other}: the table was made anew without its ids, and its rows would be counted again. Restore it with "
            "the ids it had",
            hint=Hint.begin_new_chain,
        )


def has_same_rows(connection: Connection, base: Run) -> bool:
    """Whether the sampled rows of a chain have the keys that they had. One that is gone altogether says nothing."""
    found = _compare_samples(connection, base)
    return _other_rows(found) is None and not found.moved_count


def _other_rows(found: Row[Any]) -> str | None:
    """That keys stand for other transactions than those that a close looked at; None: they do not."""
    if not found.replaced_count:
        return None
    return (
        f"key {found.replaced_key} of blnk.transactions was {found.was_id} when a close looked at it and is "
        f"{found.is_id} now, the first of {found.replaced_count}"
    )


def _compare_samples(connection: Connection, base: Run) -> Row[Any]:
    return connection.execute(statement(connection, "close.compare_samples"), base_parameters(connection, base)).one()
