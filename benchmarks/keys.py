"""(i) What the stored sets of keys take: of a year of heavy days with gaps, and of standing orders a year ahead."""

from __future__ import annotations

import random
import time
from datetime import date, timedelta
from statistics import median
from typing import Any

from sqlalchemy import text

from benchmarks.ledgers import BenchLedger, bench_ledger

FIRST_DATE = date(2026, 1, 1)
KEYS_A_BLOCK = 8_192
DAYS = 365
CLOSES = 7
PROBES = 500

# Each in a block of keys of its own, or together; due one an hour, from some days on.
ORDERS = """
INSERT INTO blnk.transactions (
    id, transaction_id, reference, source, destination, amount, precise_amount, precision, currency, status, created_at,
    effective_date
) OVERRIDING SYSTEM VALUE
SELECT
    :first + number * :apart, 'txn_order_' || number, 'order_' || number, 'bln_' || CAST(md5('0') AS uuid),
    'bln_' || CAST(md5('3') AS uuid), 1, 100, 100, 'USD', 'APPLIED', :recorded,
    CAST(:due AS timestamp) + make_interval(hours => number)
FROM generate_series(1, :orders) AS number
"""
NEXT_KEY = "SELECT setval(pg_get_serial_sequence('blnk.transactions', 'id'), (SELECT max(id) FROM blnk.transactions))"
# One in twenty, as if rolled back.
GAPS = "DELETE FROM blnk.transactions WHERE id > :after AND hashint8extended(id, 7) % 20 = 0"
# The sets of a day again for later days, with the keys that follow.
LATER_DAYS = """
INSERT INTO ledger_eod.run_keys (run_id, key_set, piece, effective_date, block, keys)
SELECT run_id + number, key_set, piece, effective_date + number, block + number * :blocks, keys
FROM ledger_eod.run_keys
CROSS JOIN generate_series(1, :days) AS number
WHERE run_id = :run_id
"""
PROBE = """
SELECT run_id FROM ledger_eod.run_keys WHERE block = :block AND key_set = 'counted' AND keys @> CAST(:key AS bigint)
"""
SIZES = "SELECT pg_table_size('ledger_eod.run_keys'), pg_indexes_size('ledger_eod.run_keys')"


def measure_year(*, balances: int, transactions_per_day: int) -> list[dict[str, Any]]:
    """The key sets of a year whose days have so many transactions, one key in twenty rolled back; who counted a key."""
    with bench_ledger("keys", balances=balances, transactions=balances, first_date=FIRST_DATE, days=1) as ledger:
        ledger.close(FIRST_DATE)
        day = FIRST_DATE + timedelta(days=1)
        ledger.add_transactions(transactions_per_day, first_date=day, days=1)
        with ledger.engine.begin() as connection:
            connection.execute(text("SET LOCAL statement_timeout = 0"))
            connection.execute(text("SET LOCAL session_replication_role = replica"))
            gaps = connection.execute(text(GAPS), {"after": balances}).rowcount
        ledger.tidy()
        run = ledger.close(day)
        blocks = transactions_per_day // KEYS_A_BLOCK + 1
        with ledger.engine.begin() as connection:
            connection.execute(text("SET LOCAL statement_timeout = 0"))
            connection.execute(text("SET LOCAL session_replication_role = replica"))
            connection.execute(text(LATER_DAYS), {"run_id": run.run_id, "days": DAYS - 1, "blocks": blocks})
        ledger.tidy("ledger_eod.run_keys")
        with ledger.engine.connect() as connection:
            table, indexes = connection.execute(text(SIZES)).one()
            chance, took = random.Random(1), []
            for _ in range(PROBES):
                key = chance.randrange(balances + 1, balances + transactions_per_day)
                block = (key >> 13) + blocks * chance.randrange(DAYS)
                started = time.perf_counter()
                connection.execute(text(PROBE), {"block": block, "key": key}).all()
                took.append(time.perf_counter() - started)
    return [
        {
            "days": DAYS,
            "transactions_per_day": transactions_per_day,
            "keys_rolled_back": round(gaps / transactions_per_day, 3),
            "table_mb": round(table / 2**20, 1),
            "indexes_mb": round(indexes / 2**20, 1),
            "look_up_median_ms": round(median(took) * 1000, 2),
        }
    ]


def measure_orders(*, balances: int, transactions_per_day: int, orders: int) -> list[dict[str, Any]]:
    """What a close stores of standing orders a year ahead, and how long it takes."""
    return [
        _orders(balances, transactions_per_day, count, apart)
        for count, apart in ((0, 1), (orders, 1), (orders, KEYS_A_BLOCK))
    ]


def _orders(balances: int, transactions_per_day: int, orders: int, apart: int) -> dict[str, Any]:
    with bench_ledger("orders", balances=balances, transactions=balances, first_date=FIRST_DATE, days=1) as ledger:
        with ledger.engine.begin() as connection:
            connection.execute(
                text(ORDERS),
                {
                    "first": balances + KEYS_A_BLOCK, "apart": apart, "orders": orders,
                    "recorded": FIRST_DATE, "due": FIRST_DATE + timedelta(days=CLOSES),
                },
            )  # fmt: skip
            connection.execute(text(NEXT_KEY))
        ledger.tidy()
        ledger.close(FIRST_DATE)
        took, before = [], _size(ledger)
        for number in range(1, CLOSES):
            day = FIRST_DATE + timedelta(days=number)
            ledger.add_transactions(transactions_per_day, first_date=day, days=1)
            ledger.tidy()
            started = time.perf_counter()
            ledger.close(day)
            took.append(time.perf_counter() - started)
        return {
            "standing_orders": orders,
            "keys_apart": apart,
            "transactions_per_day": transactions_per_day,
            "close_ms": round(median(took) * 1000),
            "stored_kb_a_close": round((_size(ledger) - before) / len(took) / 1024, 1),
        }


def _size(ledger: BenchLedger) -> int:
    with ledger.engine.connect() as connection:
        return sum(connection.execute(text(SIZES)).one())
