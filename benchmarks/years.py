"""(h) A close, history and the check of a close after one year of closes and after ten."""

from __future__ import annotations

import random
import time
from datetime import UTC, date, datetime, timedelta
from itertools import count
from statistics import median
from typing import Any

from sqlalchemy import text

from benchmarks.history import LIMIT_MS, timed
from benchmarks.ledgers import BenchLedger, bench_ledger
from ledger_db.close.runs import Run
from ledger_db.verification.closed_dates import check_run

FIRST_DATE = date(2016, 1, 1)
DAYS_A_YEAR = 365
TIMED_CLOSES = 21


def measure(*, balances: int, transactions_per_day: int, years: tuple[float, ...], calls: int) -> list[dict[str, Any]]:
    """At each age, in closes of every day: medians of a close and of checking an old one, and ``balance_at``."""
    rows: list[dict[str, Any]] = []
    with bench_ledger(
        "years", balances=balances, transactions=transactions_per_day, first_date=FIRST_DATE, days=1
    ) as ledger:
        runs = [ledger.close(FIRST_DATE)]
        for closes in (round(age * DAYS_A_YEAR) for age in years):
            while len(runs) < closes - TIMED_CLOSES:
                runs.append(_close_next(ledger, runs, transactions_per_day))
                if len(runs) % 100 == 0:
                    ledger.tidy()
            ledger.tidy()
            closing = []
            while len(runs) < closes:
                ledger.add_transactions(transactions_per_day, first_date=_next(runs), days=1)
                started = time.perf_counter()
                runs.append(ledger.close(_next(runs)))
                closing.append(time.perf_counter() - started)
            ledger.tidy()
            now, then = (_history(ledger, runs, calls, known_then=known_then) for known_then in (False, True))
            rows.append(
                {
                    "closes": len(runs),
                    "transactions": ledger.transactions,
                    "close_ms": round(median(closing) * 1000),
                    "check_of_a_close_ms": round(_checking(ledger, runs) * 1000),
                    "known_now_median_ms": now[0],
                    "known_now_p99_ms": now[1],
                    "known_at_a_close_median_ms": then[0],
                    "known_at_a_close_p99_ms": then[1],
                    "limit_p99_ms": LIMIT_MS,
                }
            )
    first = rows[0]
    return [row | {"close_against_first": round(row["close_ms"] / first["close_ms"], 2)} for row in rows]


def _next(runs: list[Run]) -> date:
    return runs[-1].business_date + timedelta(days=1)


def _close_next(ledger: BenchLedger, runs: list[Run], transactions: int) -> Run:
    ledger.add_transactions(transactions, first_date=_next(runs), days=1)
    return ledger.close(_next(runs))


def _history(ledger: BenchLedger, runs: list[Run], calls: int, *, known_then: bool) -> tuple[float, float]:
    """Median and 99th percentile of ``balance_at``, milliseconds: any balance, at any instant since the first close."""
    chance = random.Random(1)
    begins = datetime.combine(FIRST_DATE + timedelta(days=1), datetime.min.time(), UTC)
    with ledger.engine.connect() as connection:
        ids = list(connection.scalars(text("SELECT balance_id FROM blnk.balances ORDER BY id")))

        def question() -> tuple[str, datetime, int | None]:
            at = begins + timedelta(seconds=chance.uniform(0, len(runs) * 86_400))
            # a knowledge that is not older than the instant
            known = chance.choice(runs[min((at - begins).days + 1, len(runs) - 1) :]).run_id if known_then else None
            return chance.choice(ids), at, known

        return timed(connection, (question() for _ in count()), calls=calls)


def _checking(ledger: BenchLedger, runs: list[Run]) -> float:
    """Seconds, the median over closes of any age."""
    taken = []
    for run in random.Random(1).sample(runs[1:], 30):
        with ledger.engine.begin() as connection:
            started = time.perf_counter()
            checked = check_run(connection, run.run_id)
            taken.append(time.perf_counter() - started)
        assert checked.transaction_count
        assert not checked.findings
    return median(taken)
