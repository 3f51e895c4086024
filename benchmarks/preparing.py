"""(i) A heavy day's close, Prefect included, when the day was counted in advance every hour, and when it was not."""

from __future__ import annotations

import os
import time
from datetime import UTC, date, datetime, timedelta
from statistics import median
from typing import Any

from sqlalchemy import text

from benchmarks.ledgers import CALENDAR, BenchLedger, bench_ledger
from ledger_db.close.preparing import prepare_close
from ledger_db.close.runs import Run
from ledger_db.server import connections as database
from ledger_db.settings import get_settings

FIRST_DATE = date(2026, 1, 1)
HOURS = 24
LIMIT_SECONDS = 10.0


def measure(transactions: int, balances: int, *, rounds: int) -> list[dict[str, Any]]:
    """Medians of some rounds, in seconds: from the start of the flow run to the certificate."""
    from deployments.orchestrator.server import orchestrator

    found: dict[str, list[float]] = {}
    with bench_ledger(
        "preparing", balances=balances, transactions=balances, first_date=FIRST_DATE, days=1
    ) as ledger:  # fmt: skip
        ledger.close(FIRST_DATE)
        os.environ["LEDGER_DATABASE_URL"] = ledger.engine.url.render_as_string(hide_password=False)
        get_settings.cache_clear()
        try:
            with orchestrator():
                day = FIRST_DATE
                for number in range(rounds + 1):  # the first round warms up
                    for is_prepared in (False, True):
                        day += timedelta(days=1)
                        figures = _day(ledger, day, transactions, is_prepared=is_prepared)
                        if number:
                            for what, seconds in figures.items():
                                found.setdefault(what, []).append(seconds)
        finally:
            os.environ.pop("LEDGER_DATABASE_URL")
            database.dispose_engines()
            get_settings.cache_clear()
    figures = {what: round(median(seconds), 2) for what, seconds in found.items()}
    last_hour = figures["unprepared"] / HOURS
    return [
        {
            "transactions": transactions,
            "balances": balances,
            "unprepared_seconds": figures["unprepared"],
            "prepared_seconds": figures["prepared"],
            "limit_seconds": round(LIMIT_SECONDS + last_hour, 2),
            "one_preparation_seconds": figures["preparation"],
            "removed_in_seconds": figures["removal"],
        }
    ]


def _day(ledger: BenchLedger, day: date, transactions: int, *, is_prepared: bool) -> dict[str, float]:
    """Record a day, hour by hour, and close it; what took how long."""
    figures: dict[str, float] = {}
    for hour in range(HOURS):
        count = transactions * (hour + 1) // HOURS - transactions * hour // HOURS
        ledger.add_transactions(count, first_date=day, days=1)
        if is_prepared and hour < HOURS - 1:
            started = time.perf_counter()
            now = CALENDAR.opens_at(day) + timedelta(hours=hour + 1)
            prepare_close(ledger.engine, calendar=CALENDAR, now=now)
            figures["preparation"] = time.perf_counter() - started
    ledger.tidy()
    started_at = datetime.now(UTC)
    run = _close(day)
    assert run.certified_at is not None
    figures["prepared" if is_prepared else "unprepared"] = (run.certified_at - started_at).total_seconds()
    if is_prepared:
        figures["removal"] = (datetime.now(UTC) - run.certified_at).total_seconds()
        _require_taken_over(ledger, run)
    return figures


def _close(day: date) -> Run:
    from flows.snapshot_balances import SnapshotResult, snapshot_balances

    result = snapshot_balances(day, "close")
    assert isinstance(result, SnapshotResult), result
    return result.certificate.run


def _require_taken_over(ledger: BenchLedger, run: Run) -> None:
    """Every prepared piece was taken over, or nothing was measured."""
    with ledger.engine.connect() as connection:
        pieces = connection.execute(
            text("SELECT work, sum(counted_count) FROM ledger_eod.run_pieces WHERE run_id = :run GROUP BY work"),
            {"run": run.run_id},
        )
        counted = {work: int(count) for work, count in pieces}
    assert counted.get("prepared", 0) > 0.9 * sum(counted.values()), counted
