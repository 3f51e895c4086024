"""(k) What this project's indexes on the ledger's transactions take, beside the others of this schema's table."""

from __future__ import annotations

import time
from contextlib import ExitStack
from datetime import date, timedelta
from statistics import median
from typing import Any

from sqlalchemy import text

from benchmarks.ledgers import ORDINARY, BenchLedger, Mix, bench_ledger
from ledger_db.books.tables import TRANSACTION_INDEXES

FIRST_DATE = date(2026, 1, 1)
MIXES = {0.0: ORDINARY, 0.5: Mix(parents="QUEUED")}
# Rows that are generated together would share a number of their database transaction; those of an application do not.
NUMBERS = """
CREATE SEQUENCE public.recorded_xids START 1000000;
ALTER TABLE blnk.transactions
ALTER COLUMN recorded_xid SET DEFAULT CAST(CAST(nextval('public.recorded_xids') AS text) AS xid8)
"""
SIZES = """
SELECT indexes.relname, pg_relation_size(indexes.oid)
FROM pg_index
INNER JOIN pg_class AS indexes ON indexes.oid = pg_index.indexrelid
WHERE pg_index.indrelid = CAST('blnk.transactions' AS regclass)
"""


def measure(*, balances: int, transactions: int, rounds: int) -> list[dict[str, Any]]:
    """Without queued transactions, and where half of the rows are queued: bytes a row, and medians of inserting."""
    return [_measure(share, mix, balances, transactions, rounds) for share, mix in MIXES.items()]


def _measure(share: float, mix: Mix, balances: int, transactions: int, rounds: int) -> dict[str, Any]:
    with ExitStack() as stack:
        ledgers = {
            name: stack.enter_context(
                bench_ledger(f"indexes_{name}", balances=balances, transactions=2, first_date=FIRST_DATE, days=1)
            )
            for name in ("with", "without")
        }
        for ledger in ledgers.values():
            with ledger.engine.begin() as connection:
                connection.execute(text(NUMBERS))
        with ledgers["without"].engine.begin() as connection:
            for index in TRANSACTION_INDEXES:
                index.drop(connection)
        seconds: dict[str, list[float]] = {name: [] for name in ledgers}
        for number in range(rounds + 1):  # the first round warms up
            for name in list(ledgers)[:: 1 if number % 2 else -1]:  # the ledgers take turns
                taken = _insert(ledgers[name], transactions, FIRST_DATE + timedelta(days=number), mix)
                if number:
                    seconds[name].append(taken)
        ours, others = _bytes_a_row(ledgers["with"])
    figures = {name: median(taken) for name, taken in seconds.items()}
    return {
        "queued_share": share,
        "transactions": ledgers["with"].transactions,
        **{f"{name.removeprefix('ix_transactions_')}_bytes": size for name, size in ours.items()},
        "ours_bytes": round(sum(ours.values()), 1),
        "others_bytes": others,
        "inserted": transactions,
        "with_ours_seconds": round(figures["with"], 2),
        "without_seconds": round(figures["without"], 2),
        "ratio": round(median(mine / theirs for mine, theirs in zip(*seconds.values(), strict=True)), 2),
    }


def _insert(ledger: BenchLedger, transactions: int, day: date, mix: Mix) -> float:
    ledger.tidy()
    started = time.perf_counter()
    ledger.add_transactions(transactions, first_date=day, days=1, mix=mix)
    return time.perf_counter() - started


def _bytes_a_row(ledger: BenchLedger) -> tuple[dict[str, float], float]:
    """Of each of our indexes as it grew, and of the others together."""
    with ledger.engine.connect() as connection:
        sizes = {name: size / ledger.transactions for name, size in connection.execute(text(SIZES)).tuples()}
    ours = {str(index.name): round(sizes.pop(str(index.name)), 1) for index in TRANSACTION_INDEXES}
    return ours, round(sum(sizes.values()), 1)
