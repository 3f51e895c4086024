"""(a) Snapshots through Prefect against one bare INSERT … SELECT of as many rows into the same table."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import date, timedelta
from statistics import median
from typing import Any

from sqlalchemy import text

from benchmarks.ledgers import BenchLedger, bench_ledger
from ledger_db.close.runs import Run, find_run
from ledger_db.core.key_ranges import KeyRange
from ledger_db.postings.rules import statement
from ledger_db.server import connections as database
from ledger_db.settings import get_settings

FIRST_DATE = date(2026, 1, 1)
HISTORY_DAYS = 3
BATCH_SIZES = (1_000, 10_000)
LIMITS = {1_000: 2.0, 10_000: 1.3}


def measure(balances: int, *, rounds: int) -> list[dict[str, Any]]:
    """Per batch size: the median of some rounds, each a close of its own date with a like day behind it."""
    from deployments.orchestrator.server import orchestrator

    seconds: dict[str, list[float]] = {}
    with bench_ledger(
        "snapshot", balances=balances, transactions=balances, first_date=FIRST_DATE, days=HISTORY_DAYS
    ) as ledger:
        day = FIRST_DATE + timedelta(days=HISTORY_DAYS - 1)
        ledger.close(day)
        ledger.tidy()
        os.environ["LEDGER_DATABASE_URL"] = ledger.engine.url.render_as_string(hide_password=False)
        get_settings.cache_clear()
        try:
            with orchestrator():
                for number in range(rounds + 1):  # the first round warms up
                    ways: list[tuple[str, Callable[[BenchLedger, Run], float]]] = [("bare", _bare)]
                    for size in BATCH_SIZES:
                        ways += [(f"direct {size}", _direct(size)), (f"prefect {size}", _through_prefect(size))]
                    for way, run_it in ways:
                        day += timedelta(days=1)
                        ledger.add_transactions(balances // 10, first_date=day, days=1)
                        run = ledger.open(day)
                        elapsed = run_it(ledger, run)
                        if not way.startswith("prefect"):
                            ledger.certify(run)
                        if number:
                            seconds.setdefault(way, []).append(elapsed)
                    ledger.tidy()
        finally:
            os.environ.pop("LEDGER_DATABASE_URL")
            database.dispose_engines()
            get_settings.cache_clear()
    bare = seconds["bare"]
    return [
        {
            "balances": balances,
            "batch_size": size,
            "bare_seconds": round(median(bare), 2),
            "batches_seconds": round(median(seconds[f"direct {size}"]), 2),
            "ratio": round(
                median(mine / theirs for mine, theirs in zip(seconds[f"direct {size}"], bare, strict=True)), 2
            ),
            "limit": LIMITS[size],
            "through_prefect_seconds": round(median(seconds[f"prefect {size}"]), 2),
            "record_keeping_seconds": round(median(seconds[f"prefect {size}"]) - median(seconds[f"direct {size}"]), 2),
            "snapshots_per_second": round(balances / median(seconds[f"prefect {size}"])),
        }
        for size in BATCH_SIZES
    ]


def _bare(ledger: BenchLedger, run: Run) -> float:
    """The statement of a batch over all keys at once, nothing around it, waiting for the disk."""
    with ledger.engine.connect() as connection:
        base = None if run.base_run_id is None else find_run(connection, run.base_run_id).business_date
        connection.rollback()
        started = time.perf_counter()
        connection.execute(text("SET LOCAL statement_timeout = 0"))
        connection.execute(text("SET LOCAL enable_nestloop = off"))  # as for a batch
        written = connection.execute(
            statement(connection, "close.write_snapshot_batch"),
            {
                "run_id": run.run_id, "business_date": run.business_date, "kind": run.kind, "base_date": base,
                "first_key": 0, "last_key": 2**62,
            },
        ).rowcount  # fmt: skip
        connection.commit()
    assert written == ledger.balances
    return time.perf_counter() - started


def _direct(batch_size: int) -> Callable[[BenchLedger, Run], float]:
    """The same batches on the same number of threads, without an orchestrator's record-keeping."""

    def run_it(ledger: BenchLedger, run: Run) -> float:
        keys = ledger.plan(run, batch_size)

        def write(batch: KeyRange) -> int:
            return ledger.write(run, batch)

        started = time.perf_counter()
        with ThreadPoolExecutor(get_settings().workers) as pool:
            written = sum(pool.map(write, keys))
        assert written == ledger.balances
        return time.perf_counter() - started

    return run_it


def _through_prefect(batch_size: int) -> Callable[[BenchLedger, Run], float]:
    """The real flow on a real server; the time of its write phase."""

    def run_it(ledger: BenchLedger, run: Run) -> float:
        from flows.snapshot_balances import SnapshotResult, snapshot_balances

        result = snapshot_balances(run.business_date, "close", batch_size)
        assert isinstance(result, SnapshotResult), result
        assert result.written == ledger.balances
        return result.phases_ms["write"] / 1000

    return run_it
