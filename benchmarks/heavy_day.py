"""(j) The longest statement of a very heavy day's close, and of the verifications of it, by the shape of the day."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import date, datetime, timedelta
from traceback import walk_stack
from typing import Any

from sqlalchemy import event, text

from benchmarks.ledgers import BenchLedger, Mix, bench_ledger
from benchmarks.verification import BATCH_SIZE, settle
from ledger_db.close.driver import count_rows, resume_run
from ledger_db.close.runs import Run
from ledger_db.server.connections import one_instant
from ledger_db.verification.closed_dates import check_run
from ledger_db.verification.driver import verify

FIRST_DATE = date(2026, 1, 1)
DAY = FIRST_DATE + timedelta(days=1)
LIMIT_SECONDS = 5.0
NOON = datetime.combine(DAY, datetime.min.time()) + timedelta(hours=12)
# One row in fifty is a hold, and the next one its commit.
ORDINARY = Mix(parents="INFLIGHT", pair_every=50)
SHAPES = {
    "ordinary": ORDINARY,
    "one instant": replace(ORDINARY, effective_at=NOON),
    "one balance in half": replace(ORDINARY, hot_every=2, hot_balances=1),
}
# Packages by which others run their statements.
SHARED = ("ledger_db.server.", "ledger_db.postings.", "ledger_db.core.")
PIECES = "SELECT count(*) FROM ledger_eod.run_pieces WHERE run_id = :run_id"


def measure(*, balances: int, transactions: int, piece_size: int) -> list[dict[str, Any]]:
    """One day of each shape in a ledger of its own, measured once; each statement runs alone."""
    return [
        {"shape": shape, "transactions": transactions, "balances": balances, **row}
        for shape, mix in SHAPES.items()
        for row in _measure(mix, balances, transactions, piece_size)
    ]


def _measure(mix: Mix, balances: int, transactions: int, piece_size: int) -> list[dict[str, Any]]:
    with bench_ledger("heavy", balances=balances, transactions=balances, first_date=FIRST_DATE, days=1) as ledger:
        ledger.close(FIRST_DATE)
        settled = settle(ledger)
        _verify_since_close(ledger)  # looks at the transactions so far
        ledger.load(transactions, first_date=DAY, days=1, mix=mix)
        ledger.tidy()
        with _watched(ledger, "close") as of_close:
            run = _close(ledger, piece_size)
        with ledger.engine.connect() as connection:
            pieces = connection.scalar(text(PIECES), {"run_id": run.run_id})
        settle(ledger, settled=settled)
        with _watched(ledger, "checksums") as of_checksums:
            _check(ledger, run)
        with _watched(ledger, "since-close") as of_since_close:
            _verify_since_close(ledger)
    of_close |= {"pieces": pieces, "limit_seconds": LIMIT_SECONDS}
    return [of_close, of_checksums, of_since_close]


def _close(ledger: BenchLedger, piece_size: int) -> Run:
    run = ledger.open(DAY, count=False)
    count_rows(ledger.engine, run.run_id, piece_size=piece_size)
    return resume_run(ledger.engine, run.run_id, batch_size=BATCH_SIZE).run


def _check(ledger: BenchLedger, run: Run) -> None:
    """What a checksums verification does with each close."""
    with one_instant(ledger.engine) as connection:
        checked = check_run(connection, run.run_id)
    assert checked.transaction_count
    assert not checked.findings


def _verify_since_close(ledger: BenchLedger) -> None:
    assert not verify(ledger.engine, scope="since-close", batch_size=BATCH_SIZE).findings


@contextmanager
def _watched(ledger: BenchLedger, what: str) -> Iterator[dict[str, Any]]:
    """At the end: seconds of the work, its longest statement, and the bytes of temporary files it wrote."""
    found: dict[str, Any] = {"work": what, "pieces": None}
    longest: dict[str, float] = defaultdict(float)

    def begin(_connection: Any, _cursor: Any, _statement: str, _parameters: Any, context: Any, _many: bool) -> None:
        context.began_at = time.perf_counter()

    def end(_connection: Any, _cursor: Any, _statement: str, _parameters: Any, context: Any, _many: bool) -> None:
        seconds, step = time.perf_counter() - context.began_at, _step()
        longest[step] = max(longest[step], seconds)

    written = ledger.temp_bytes()
    started = time.perf_counter()
    event.listen(ledger.engine, "before_cursor_execute", begin)
    event.listen(ledger.engine, "after_cursor_execute", end)
    try:
        yield found
    finally:
        event.remove(ledger.engine, "before_cursor_execute", begin)
        event.remove(ledger.engine, "after_cursor_execute", end)
    seconds = time.perf_counter() - started
    step = max(longest, key=lambda each: longest[each])
    found |= {
        "seconds": round(seconds, 2),
        "longest_statement": step,
        "its_seconds": round(longest[step], 3),
        "limit_seconds": None,
        "temp_bytes": ledger.temp_bytes() - written,
    }


def _step() -> str:
    """The function whose statement is run."""
    for frame, _ in walk_stack(None):
        module = str(frame.f_globals.get("__name__", ""))
        if module.startswith("ledger_db.") and not module.startswith(SHARED):
            function = frame.f_code.co_qualname.partition(".<locals>")[0]
            return f"{module.removeprefix('ledger_db.')}.{function}"
    return "another"
