"""(c) ``balance_at`` over a large ledger: quiet and hot balances at random instants."""

from __future__ import annotations

import random
import time
from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from itertools import count, islice
from statistics import median
from typing import Any

from sqlalchemy import Connection, text

from benchmarks.ledgers import bench_ledger
from ledger_db.history.balance_at import balance_at

FIRST_DATE = date(2026, 1, 1)
DAYS = 30
CLOSES = 5
LIMIT_MS = 5.0
WARM_UP_CALLS = 50


def timed(
    connection: Connection, questions: Iterator[tuple[str, datetime, int | None]], *, calls: int
) -> tuple[float, float]:
    """Median and 99th percentile of ``balance_at``, milliseconds. A question: balance, instant, run that is known."""
    taken = []
    for balance_id, instant, known_at in islice(questions, WARM_UP_CALLS + calls):
        started = time.perf_counter()
        balance_at(connection, balance_id, instant, known_at=known_at)
        taken.append((time.perf_counter() - started) * 1000)
        connection.commit()  # a rollback would make psycopg forget what it prepared
    taken = sorted(taken[WARM_UP_CALLS:])
    return round(median(taken), 2), round(taken[int(len(taken) * 0.99)], 2)


def measure(*, balances: int, transactions: int, calls: int) -> list[dict[str, Any]]:
    """Milliseconds a call at instants between the first close and the end of the ledger; the last day is not closed."""
    a_day = transactions // DAYS
    days = DAYS - CLOSES  # before the first close, and its own
    with bench_ledger(
        "history", balances=balances, transactions=days * a_day, first_date=FIRST_DATE, days=days
    ) as ledger:
        dates = [FIRST_DATE + timedelta(days=days - 1 + number) for number in range(CLOSES)]
        runs = []
        for day in dates:
            runs.append(ledger.close(day))
            ledger.add_transactions(a_day, first_date=day + timedelta(days=1), days=1)
        ledger.tidy()
        begins = datetime.combine(dates[0] + timedelta(days=1), datetime.min.time(), UTC)
        chance = random.Random(1)
        rows = []
        with ledger.engine.connect() as connection:
            ids = list(connection.scalars(text("SELECT balance_id FROM blnk.balances WHERE id % 997 = 5")))
            hot = list(connection.scalars(text("SELECT balance_id FROM blnk.balances ORDER BY id LIMIT 3")))
            postings = connection.scalar(
                text("SELECT count(*) FROM blnk.transactions WHERE source = :id OR destination = :id"), {"id": hot[0]}
            )
            for what, pool, known in (
                ("quiet, known now", ids, None),
                ("hot, known now", hot, None),
                ("quiet, known at a close", ids, runs[-2].run_id),
                ("hot, known at a close", hot, runs[-2].run_id),
            ):
                instants = (begins + timedelta(seconds=chance.uniform(0, CLOSES * 86_400)) for _ in count())
                questions = ((chance.choice(pool), instant, known) for instant in instants)
                median_ms, p99_ms = timed(connection, questions, calls=calls)
                rows.append(
                    {
                        "balance": what,
                        "postings_of_it": postings if pool is hot else 2 * transactions // balances,
                        "calls": calls,
                        "median_ms": median_ms,
                        "p99_ms": p99_ms,
                        "limit_p99_ms": LIMIT_MS,
                    }
                )
            for balance_id in (hot[0], ids[0]):  # both ways agree
                instant = begins + timedelta(days=2, hours=5)
                mine, source = (balance_at(connection, balance_id, instant, from_source=way) for way in (False, True))
                assert (mine.credit_balance, mine.debit_balance) == (source.credit_balance, source.debit_balance)
    return rows
