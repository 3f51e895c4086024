"""(e) From-genesis verification against one bare set-based recompute; since-close with 1×, 4× and 16× the history."""

from __future__ import annotations

import time
from contextlib import ExitStack
from datetime import date, timedelta
from statistics import median
from typing import Any

from sqlalchemy import text

from benchmarks.ledgers import BenchLedger, bench_ledger
from ledger_db.postings.rules import statement
from ledger_db.settings import get_settings
from ledger_db.verification.driver import verify
from ledger_db.verification.sweeps import Scope

FACTORS = (1, 4, 16)
HISTORY_DAYS = 30
FIRST_DATE = date(2026, 1, 1)
BATCH_SIZE = 10_000
LIMIT_FROM_GENESIS = 1.5

#: Stored rows brought to what their postings say, so that there is nothing to find; no hold is left.
SETTLE = """
UPDATE blnk.balances AS stored
SET
    credit_balance = stored.credit_balance + sums.credit,
    debit_balance = stored.debit_balance + sums.debit,
    balance = stored.balance + sums.credit - sums.debit
FROM (
    SELECT balance_id, sum(credit) AS credit, sum(debit) AS debit
    FROM (
        SELECT destination AS balance_id, precise_amount AS credit, 0 AS debit FROM blnk.transactions
        WHERE id > :settled AND status = 'APPLIED'
        UNION ALL
        SELECT source, 0, precise_amount FROM blnk.transactions
        WHERE id > :settled AND status = 'APPLIED'
    ) AS sides
    GROUP BY balance_id
) AS sums
WHERE sums.balance_id = stored.balance_id
"""

#: The same posting rules in one bare statement: the recompute that the limit is set against.
BARE_BY_THE_RULES = """
SELECT count(*)
FROM blnk.balances AS stored
LEFT JOIN (
    SELECT
        balance_id, sum(credit) AS credit, sum(debit) AS debit, sum(inflight_credit) AS inflight_credit,
        sum(inflight_debit) AS inflight_debit
    FROM postings
    GROUP BY balance_id
) AS sums ON sums.balance_id = stored.balance_id
WHERE (stored.credit_balance, stored.debit_balance, stored.inflight_credit_balance, stored.inflight_debit_balance)
    IS DISTINCT FROM (
        COALESCE(sums.credit, 0), COALESCE(sums.debit, 0), COALESCE(sums.inflight_credit, 0),
        COALESCE(sums.inflight_debit, 0)
    )
"""

#: What one would write by hand, without holds that are settled, rates, missing precise amounts, exceptions.
BARE = """
SELECT count(*)
FROM blnk.balances AS stored
LEFT JOIN (
    SELECT
        balance_id, sum(credit) AS credit, sum(debit) AS debit, sum(held_credit) AS held_credit,
        sum(held_debit) AS held_debit
    FROM (
        SELECT
            destination AS balance_id,
            CASE WHEN status = 'APPLIED' THEN precise_amount ELSE 0 END AS credit, 0 AS debit,
            CASE WHEN status = 'INFLIGHT' THEN precise_amount ELSE 0 END AS held_credit, 0 AS held_debit
        FROM blnk.transactions
        UNION ALL
        SELECT
            source, 0, CASE WHEN status = 'APPLIED' THEN precise_amount ELSE 0 END, 0,
            CASE WHEN status = 'INFLIGHT' THEN precise_amount ELSE 0 END
        FROM blnk.transactions
    ) AS sides
    GROUP BY balance_id
) AS sums ON sums.balance_id = stored.balance_id
WHERE (stored.credit_balance, stored.debit_balance, stored.inflight_credit_balance, stored.inflight_debit_balance)
    IS DISTINCT FROM (
        COALESCE(sums.credit, 0), COALESCE(sums.debit, 0), COALESCE(sums.held_credit, 0), COALESCE(sums.held_debit, 0)
    )
"""


def settle(ledger: BenchLedger, *, settled: int = 0) -> int:
    """Settle the transactions whose key is above the one that is settled; returns the newest key."""
    with ledger.engine.begin() as connection:
        connection.execute(text("SET LOCAL statement_timeout = 0"))
        connection.execute(text(SETTLE), {"settled": settled})
        newest = connection.scalar(text("SELECT max(id) FROM blnk.transactions"))
    ledger.tidy()
    return int(newest or 0)


def sweep(ledger: BenchLedger, scope: Scope) -> float:
    """Seconds of a whole verification in which nothing is found, its steps side by side as in the flow, without it."""
    started = time.perf_counter()
    result = verify(ledger.engine, scope=scope, batch_size=BATCH_SIZE, workers=get_settings().workers)
    seconds = time.perf_counter() - started
    assert result.findings == []
    assert result.verification.balance_count == ledger.balances
    return seconds


def bare(ledger: BenchLedger, *, by_hand: bool = False) -> float:
    """Seconds of the bare statement, by the posting rules or as one would write it by hand."""
    with ledger.engine.begin() as connection:
        connection.execute(text("SET LOCAL statement_timeout = 0"))
        rules = f"WITH {statement(connection, 'postings.postings').text} "
        started = time.perf_counter()
        assert connection.scalar(text(BARE if by_hand else rules + BARE_BY_THE_RULES)) == 0
        return time.perf_counter() - started


def from_genesis(*, balances: int, transactions: int, rounds: int) -> list[dict[str, Any]]:
    """The median of some rounds; both ways take turns."""
    with bench_ledger(
        "genesis", balances=balances, transactions=transactions, first_date=FIRST_DATE, days=HISTORY_DAYS
    ) as ledger:
        settle(ledger)
        ledger.close(FIRST_DATE + timedelta(days=HISTORY_DAYS - 1))
        ledger.tidy()
        bare(ledger), sweep(ledger, "from-genesis")  # warm up
        pairs = [(sweep(ledger, "from-genesis"), bare(ledger)) for _ in range(rounds)]
        by_hand = median(bare(ledger, by_hand=True) for _ in range(rounds))
    return [
        {
            "balances": balances,
            "transactions": transactions,
            "by_hand_seconds": round(by_hand, 3),
            "bare_seconds": round(median(theirs for _, theirs in pairs), 3),
            "sweep_seconds": round(median(mine for mine, _ in pairs), 3),
            "ratio": round(median(mine / theirs for mine, theirs in pairs), 2),
            "limit": LIMIT_FROM_GENESIS,
        }
    ]


def since_close(*, balances: int, transactions_per_day: int, history: int, rounds: int) -> list[dict[str, Any]]:
    """Median seconds of the sweep after a close, with a day's rows recorded since the sweep before it."""
    with ExitStack() as stack:
        ledgers = {
            factor: stack.enter_context(
                bench_ledger(
                    f"since{factor}", balances=balances, transactions=history * factor, first_date=FIRST_DATE,
                    days=HISTORY_DAYS,
                )
            )
            for factor in FACTORS
        }  # fmt: skip
        settled = {}
        for factor, ledger in ledgers.items():
            ledger.close(FIRST_DATE + timedelta(days=HISTORY_DAYS - 1))
            settled[factor] = settle(ledger)
            sweep(ledger, "since-close")  # looks at every transaction once
        seconds = day_after_day(ledgers, settled, transactions_per_day=transactions_per_day, rounds=rounds)
    first = median(seconds[FACTORS[0]])
    return [
        {
            "history": f"{factor}×",
            "transactions_before": history * factor,
            "sweep_seconds": round(median(seconds[factor]), 3),
            "against_1x": round(median(seconds[factor]) / first, 3),
            "limit": "0.90–1.10",
        }
        for factor in FACTORS
    ]


def day_after_day(
    ledgers: dict[int, BenchLedger], settled: dict[int, int], *, transactions_per_day: int, rounds: int
) -> dict[int, list[float]]:
    """Seconds of each day's sweep of each ledger; the ledgers take turns."""
    seconds: dict[int, list[float]] = {factor: [] for factor in ledgers}
    day = FIRST_DATE + timedelta(days=HISTORY_DAYS - 1)
    for number in range(rounds + 1):  # the first round warms up
        day += timedelta(days=1)
        order = list(ledgers.items())
        first = number % len(order)
        for factor, ledger in order[first:] + order[:first]:  # none twice in a row: it would find its pages in memory
            ledger.add_transactions(transactions_per_day, first_date=day, days=1)
            ledger.close(day)
            settled[factor] = settle(ledger, settled=settled[factor])
            taken = sweep(ledger, "since-close")
            if number:
                seconds[factor].append(taken)
    return seconds
