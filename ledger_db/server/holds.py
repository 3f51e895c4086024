"""Advisory locks of the database: they show which session is working on something.

A hold avoids duplicate work, and shows a second caller that another one was first. A second call must be harmless
without it: by a unique key, a version, or a row's own lock.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress

from sqlalchemy import Connection, Engine, func, literal, select
from sqlalchemy.exc import DBAPIError


@contextmanager
def hold(engine: Engine, purpose: str, key: int) -> Iterator[bool]:
    """Hold one thing of a purpose until the block ends; yields False at once when another session holds it.

    The hold belongs to a session and ends with it, however the process ends. The session is not used again.
    """
    connection = engine.connect().execution_options(isolation_level="AUTOCOMMIT")
    try:
        yield bool(connection.scalar(select(func.pg_try_advisory_lock(_number(purpose), key))))
    finally:
        with suppress(DBAPIError):  # a lost session holds nothing; a closed one releases a moment later
            connection.execute(select(func.pg_advisory_unlock_all()))
        connection.invalidate()
        connection.close()


def take_turns(connection: Connection, purpose: str) -> None:
    """Wait until no other transaction has this purpose's turn; the turn ends with this transaction."""
    connection.execute(select(func.pg_advisory_xact_lock(_number(purpose))))


def try_to_hold(connection: Connection, purpose: str) -> bool:
    """Hold a purpose until the connection's session ends; False at once when another session holds it."""
    return bool(connection.scalar(select(func.pg_try_advisory_lock(_number(purpose)))))


def wait_to_hold(connection: Connection, purpose: str) -> None:
    """Hold a purpose until the connection's session ends; waits while another session holds it."""
    connection.execute(select(func.pg_advisory_lock(_number(purpose))))


def _number(purpose: str) -> object:
    return func.hashtext(literal(f"ledger-eod {purpose}"))
