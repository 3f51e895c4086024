"""Writers at full speed: threads that record, hold, settle and void while a job runs."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta

from ledger_db.books.holds import commit_inflight, void_inflight
from ledger_db.books.recording import Movement, record
from ledger_db.server.connections import make_engine
from tests.testing.books import Ledger, instant

USD = [f"usd{number}" for number in range(12)]

EUR = [f"eur{number}" for number in range(8)]


# Closing under write load ---------------------------------------------------------------------------------------------


class Writers:
    """Sessions that go on transferring: back-dated, future-dated, on hold, committed, voided, left open for a while."""

    def __init__(self, ledger: Ledger, count: int = 4) -> None:
        self._stop = threading.Event()
        self._engine = make_engine(ledger.url)
        self.recorded = 0
        self.failures: list[BaseException] = []
        self._threads = [threading.Thread(target=self._work, args=(seed,)) for seed in range(count)]

    @contextmanager
    def at_work(self) -> Iterator[Writers]:
        for thread in self._threads:
            thread.start()
        try:
            yield self
        finally:
            self._stop.set()
            for thread in self._threads:
                thread.join()
            self._engine.dispose()
        assert self.failures == []

    def wait_for(self, more: int) -> None:
        """Return when the writers have recorded so many transactions more."""
        target, deadline = self.recorded + more, time.monotonic() + 30
        while self.recorded < target:
            assert time.monotonic() < deadline and not self.failures, self.failures
            time.sleep(0.005)

    def _work(self, seed: int) -> None:
        chance = random.Random(seed)  # noqa: S311
        holds: list[str] = []
        try:
            while not self._stop.is_set():
                names, currency = chance.choice([(USD, "USD"), (EUR, "EUR")])
                source, destination = chance.sample(names, 2)
                moment = instant("2026-01-29") + timedelta(minutes=chance.randrange(-600, 6000))
                with self._engine.begin() as connection:
                    if holds and chance.random() < 0.3:
                        settle = chance.choice([commit_inflight, void_inflight])
                        settle(connection, holds.pop(), created_at=moment)
                    else:
                        held = chance.random() < 0.25
                        made = record(
                            connection,
                            Movement(
                                f"bln_{source}", f"bln_{destination}", chance.randrange(1, 10**6), currency,
                                status="INFLIGHT" if held else "APPLIED", created_at=moment,
                            ),
                        )  # fmt: skip
                        holds += [made] if held else []
                    if chance.random() < 0.3:
                        time.sleep(chance.random() / 40)  # open while others commit, with a lower transaction id
                self.recorded += 1
        except BaseException as error:
            self.failures.append(error)
