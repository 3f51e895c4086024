"""A background server that several processes share: the last one to leave stops it.

Each user holds a shared ``flock`` on ``users.lock``. A user that leaves and can lock the file exclusively is the last.
The kernel releases the lock of a killed process, so no count of users is kept that could become wrong.
"""

from __future__ import annotations

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO


class SharedUse:
    """This process as a user of the server of one folder, which must exist."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._share: IO[bytes] | None = None

    def enter(self) -> None:
        """Become a user; a second call changes nothing."""
        if self._share is None:
            self._share = (self._folder / "users.lock").open("ab")
            fcntl.flock(self._share, fcntl.LOCK_SH)

    @contextmanager
    def turn(self) -> Iterator[None]:
        """Be the only process that starts or stops the server until the block ends; waits for the others."""
        with (self._folder / "server.lock").open("ab") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield

    @contextmanager
    def leave(self) -> Iterator[bool]:
        """Stop being a user. Yields True to the last user, which must stop the server inside the block."""
        share, self._share = self._share, None
        if share is None:
            yield False
            return
        with share, self.turn():
            fcntl.flock(share, fcntl.LOCK_UN)
            try:
                fcntl.flock(share, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                yield False
                return
            yield True
