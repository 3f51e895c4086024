"""(b) The same day's close with 1×, 4× and 16× the history before it."""

from __future__ import annotations

import time
from contextlib import ExitStack
from datetime import date, timedelta
from statistics import median
from typing import Any

from benchmarks.ledgers import BenchLedger, bench_ledger

FACTORS = (1, 4, 16)
HISTORY_DAYS = 30
FIRST_DATE = date(2026, 1, 1)


def measure(*, balances: int, transactions_per_day: int, history: int, rounds: int) -> list[dict[str, Any]]:
    """Median seconds of a whole close: open, collect, write, certify. The three ledgers take turns, day by day."""
    seconds: dict[int, list[float]] = {factor: [] for factor in FACTORS}
    with ExitStack() as stack:
        ledgers: dict[int, BenchLedger] = {
            factor: stack.enter_context(
                bench_ledger(
                    f"growth{factor}", balances=balances, transactions=history * factor, first_date=FIRST_DATE,
                    days=HISTORY_DAYS,
                )
            )
            for factor in FACTORS
        }  # fmt: skip
        day = FIRST_DATE + timedelta(days=HISTORY_DAYS - 1)
        for ledger in ledgers.values():
            ledger.close(day)
            ledger.tidy()
        for number in range(rounds + 1):  # the first round warms up
            day += timedelta(days=1)
            turn = list(ledgers.items()) if number % 2 else list(reversed(ledgers.items()))
            for factor, ledger in turn:
                ledger.add_transactions(transactions_per_day, first_date=day, days=1)
                ledger.tidy()
                started = time.perf_counter()
                ledger.close(day)
                if number:
                    seconds[factor].append(time.perf_counter() - started)
    first = median(seconds[FACTORS[0]])
    return [
        {
            "history": f"{factor}×",
            "transactions_before": history * factor,
            "close_seconds": round(median(seconds[factor]), 3),
            "against_1x": round(median(seconds[factor]) / first, 3),
            "limit": "0.90–1.10",
        }
        for factor in FACTORS
    ]
