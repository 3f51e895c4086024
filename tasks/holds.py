"""The hold that one process has on a run or a scope while it works on it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import TypeVar

from sqlalchemy import Engine

from ledger_db.errors import RunAtWork
from ledger_db.server.connections import ledger_engine

Key = TypeVar("Key")


@contextmanager
def held(hold: Callable[[Engine, Key], AbstractContextManager[bool]], key: Key, name: str) -> Iterator[None]:
    """Hold something of the configured ledger while the block lasts. ``name`` is how a message names it.

    Raises:
        RunAtWork: another process holds it; the block was not entered.
    """
    with hold(ledger_engine(), key) as is_mine:
        if not is_mine:
            raise RunAtWork(f"another process is at work on {name}")
        yield
