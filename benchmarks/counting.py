"""(c) A heavy day counted in pieces, and closed, against one bare INSERT … SELECT that sums both sides of its rows."""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import date, timedelta
from functools import partial
from statistics import median
from typing import Any

import psutil  # type: ignore[import-untyped]
from sqlalchemy import Connection, text

from benchmarks.ledgers import BenchLedger, bench_ledger
from ledger_db.close.counting import count_piece, finish_counting, plan_hold_pieces, plan_pieces
from ledger_db.close.driver import resume_run
from ledger_db.server.connections import WORK_MEM
from ledger_db.settings import get_settings

FIRST_DATE = date(2026, 1, 1)
LIMITS = {"counting": 2.5, "close": 5.0, "speedup": 1.7, "temp_bytes": 0}

# The columns of a piece's activity, by balance; no exceptions, holds, keys or digests.
BARE = """
INSERT INTO public.bare_activity (
    run_id, balance_key, effective_date, piece, is_late, posting_count, credit_balance, debit_balance,
    inflight_credit_balance, inflight_debit_balance, last_transaction_key
)
SELECT 0, balances.id, CAST(:day AS date), 1, FALSE, sums.postings, sums.credit, sums.debit, 0, 0, sums.last_key
FROM (
    SELECT balance_id, count(*) AS postings, sum(credit) AS credit, sum(debit) AS debit, max(id) AS last_key
    FROM (
        SELECT id, destination AS balance_id, precise_amount AS credit, CAST(0 AS numeric) AS debit
        FROM blnk.transactions WHERE id > :after AND status = 'APPLIED'
        UNION ALL
        SELECT id, source, 0, precise_amount FROM blnk.transactions WHERE id > :after AND status = 'APPLIED'
    ) AS sides
    GROUP BY balance_id
) AS sums
INNER JOIN blnk.balances USING (balance_id)
"""


def measure(days: list[tuple[int, int]], *, rounds: int) -> list[dict[str, Any]]:
    """For each size of a day, transactions and balances: medians of CPU seconds of the database's sessions.

    ``temp_bytes``: what all closes wrote to temporary files.
    """
    return [_measure(transactions, balances, rounds) for transactions, balances in days]


def _measure(transactions: int, balances: int, rounds: int) -> dict[str, Any]:
    found: dict[str, list[float]] = {}

    def note(what: str, value: float) -> None:
        found.setdefault(what, []).append(value)

    with bench_ledger("counting", balances=balances, transactions=balances, first_date=FIRST_DATE, days=1) as ledger:
        ledger.close(FIRST_DATE)
        day, temp_bytes = FIRST_DATE, 0
        for number in range(rounds + 1):  # the first round warms up
            for workers in (1, 2):
                day += timedelta(days=1)
                after = _highest_key(ledger)
                ledger.add_transactions(transactions, first_date=day, days=1)
                ledger.tidy()
                bare = {memory: _cpu_of(ledger, partial(_bare, day, after, memory)) for memory in ("4MB", WORK_MEM)}
                written = ledger.temp_bytes()
                run_id = _open(ledger, day)
                counting, seconds = _cpu_of_pool(ledger, partial(_count, ledger, run_id, workers))
                rest, _ = _cpu_of_pool(ledger, partial(resume_run, ledger.engine, run_id, batch_size=10_000))
                temp_bytes += ledger.temp_bytes() - written
                if number:
                    note(f"seconds {workers}", seconds)
                    note("counting", counting)
                    note("close", counting + rest)
                    for memory, spent in bare.items():
                        note(f"bare {memory}", spent)
    figures = {what: median(values) for what, values in found.items()}
    least = max(min(figures["bare 4MB"], figures[f"bare {WORK_MEM}"]), 0.01)  # the clock of a process ticks so often
    return {
        "transactions": transactions,
        "balances": balances,
        "bare_cpu_seconds": round(least, 2),
        f"bare_{WORK_MEM}_cpu_seconds": round(figures[f"bare {WORK_MEM}"], 2),
        "counting_cpu_seconds": round(figures["counting"], 2),
        "counting_against_bare": round(figures["counting"] / least, 2),
        "counting_limit": LIMITS["counting"],
        "close_cpu_seconds": round(figures["close"], 2),
        "close_against_bare": round(figures["close"] / least, 2),
        "close_limit": LIMITS["close"],
        "two_workers_are_faster": round(figures["seconds 1"] / figures["seconds 2"], 2),
        "two_workers_limit": LIMITS["speedup"],
        "temp_bytes": temp_bytes,
        "temp_bytes_limit": LIMITS["temp_bytes"],
    }


def _bare(day: date, after: int, memory: str, connection: Connection) -> None:
    connection.execute(text("SET LOCAL statement_timeout = 0"))
    connection.execute(text(f"SET LOCAL work_mem = '{memory}'"))
    connection.execute(text("SET LOCAL jit = off"))
    connection.execute(text("CREATE TABLE public.bare_activity (LIKE ledger_eod.activity INCLUDING ALL)"))
    connection.execute(text(BARE), {"day": day, "after": after})
    connection.execute(text("DROP TABLE public.bare_activity"))


def _open(ledger: BenchLedger, day: date) -> int:
    return ledger.open(day, count=False).run_id


def _count(ledger: BenchLedger, run_id: int, workers: int) -> None:
    """All pieces of a run, on some sessions at once."""

    def count(piece: int) -> None:
        with ledger.engine.begin() as connection:
            count_piece(connection, run_id, piece)

    with ThreadPoolExecutor(workers) as pool:
        for plan in (plan_pieces, plan_hold_pieces):
            with ledger.engine.begin() as connection:
                pieces = plan(connection, run_id, piece_size=get_settings().piece_size)
            list(pool.map(count, [piece.piece for piece in pieces]))
    with ledger.engine.begin() as connection:
        finish_counting(connection, run_id)


def _highest_key(ledger: BenchLedger) -> int:
    with ledger.engine.connect() as connection:
        return int(connection.scalar(text("SELECT COALESCE(max(id), 0) FROM blnk.transactions")) or 0)


def _cpu_of(ledger: BenchLedger, work: Callable[[Connection], None]) -> float:
    """CPU seconds of work on one session."""
    with ledger.engine.begin() as connection:
        process = psutil.Process(int(connection.scalar(text("SELECT pg_backend_pid()")) or 0))
        before = _spent(process)
        work(connection)
        return _spent(process) - before


def _cpu_of_pool(ledger: BenchLedger, work: Callable[[], object]) -> tuple[float, float]:
    """CPU seconds of all sessions of the ledger's database, and elapsed ones. The pool keeps its sessions meanwhile."""
    before = _sessions(ledger)
    started = time.perf_counter()
    work()
    seconds = time.perf_counter() - started
    return sum(spent - before.get(pid, 0) for pid, spent in _sessions(ledger).items()), seconds


def _sessions(ledger: BenchLedger) -> dict[int, float]:
    with ledger.engine.connect() as connection:
        pids = connection.scalars(
            text(
                "SELECT pid FROM pg_stat_activity "
                "WHERE datname = current_database() AND backend_type = 'client backend'"
            )
        ).all()
        return {pid: _spent(psutil.Process(pid)) for pid in pids}


def _spent(process: psutil.Process) -> float:
    times = process.cpu_times()
    return float(times.user + times.system)
