"""(f) Reconstruction of one balance with a million postings, and of a thousand ordinary ones, against bare sums."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from datetime import date, datetime, timedelta
from statistics import median
from typing import Any

from sqlalchemy import Connection, text

from benchmarks.ledgers import CURRENCIES, BenchLedger, bench_ledger
from benchmarks.verification import settle
from ledger_db.correction.driver import Progress, apply, propose
from ledger_db.correction.proposals import begin_applying
from ledger_db.correction.recalculation import recalculate
from ledger_db.correction.reconstructions import base_of, open_reconstruction
from ledger_db.evidence.approvals import decide
from ledger_db.postings.rules import statement

FIRST_DATE = date(2026, 1, 1)
HISTORY_DAYS = 30
LIMIT_HOT = 1.3
LIMIT_ORDINARY_MS = 15

#: Every other one is a credit of balance 0, the others are debits; the other sides are balances of its currency.
HOT_TRANSACTIONS = """
INSERT INTO blnk.transactions (
    transaction_id, source, destination, reference, amount, precise_amount, precision, currency, status, created_at,
    effective_date
)
SELECT
    'hot_' || CAST(md5(CAST(i AS text)) AS uuid),
    CASE WHEN i % 2 = 0 THEN hot ELSE other END, CASE WHEN i % 2 = 0 THEN other ELSE hot END,
    'hot_' || i, CAST(100 + h % 100000 AS numeric) / 100, 100 + h % 100000, 100, :currency, 'APPLIED', at, at
FROM (
    SELECT
        i, h, 'bln_' || CAST(md5('0') AS uuid) AS hot,
        'bln_' || CAST(md5(CAST(3 * (1 + h % (:balances / 3 - 1)) AS text)) AS uuid) AS other,
        CAST(:starts_at AS timestamp) + i * (make_interval(days => :days) / :transactions) AS at
    FROM (
        SELECT i, hashint8extended(i, 3) & 9223372036854775807 AS h
        FROM generate_series(CAST(0 AS bigint), CAST(:transactions AS bigint) - 1) AS i
    ) AS hashed
) AS numbered
"""

BY_THE_RULES = """
SELECT sum(credit), sum(debit), sum(inflight_credit), sum(inflight_debit) FROM postings WHERE balance_id = :balance_id
"""

#: What one would write by hand, without holds, rates, missing precise amounts, exceptions.
BY_HAND = """
SELECT sum(credit), sum(debit)
FROM (
    SELECT precise_amount AS credit, 0 AS debit
    FROM blnk.transactions WHERE destination = :balance_id AND status = 'APPLIED'
    UNION ALL
    SELECT 0, precise_amount FROM blnk.transactions WHERE source = :balance_id AND status = 'APPLIED'
) AS sides
"""

#: One amount of some stored rows changed behind the ledger's back.
TAMPER = """
UPDATE blnk.balances SET credit_balance = credit_balance + 500, balance = balance + 500
WHERE balance_id = ANY(CAST(:balance_ids AS text []))
"""


def by_the_rules(connection: Connection, balance_id: str) -> None:
    """The bare sum of one balance by the posting rules."""
    rules = statement(connection, "postings.postings").text
    connection.execute(text(f"WITH {rules} {BY_THE_RULES}"), {"balance_id": balance_id}).one()


def by_hand(connection: Connection, balance_id: str) -> None:
    connection.execute(text(BY_HAND), {"balance_id": balance_id}).one()


def agrees(connection: Connection, balance_id: str, base: Any) -> None:
    assert recalculate(connection, balance_id, base).agrees


class Applied:
    """A reconstruction of tampered balances, each step timed per balance, milliseconds."""

    def __init__(self, ledger: BenchLedger, balance_ids: Sequence[str]) -> None:
        with ledger.engine.begin() as connection:
            connection.execute(text("SET LOCAL statement_timeout = 0"))
            connection.execute(text(TAMPER), {"balance_ids": list(balance_ids)})
        self.examined_ms: list[float] = []
        self.corrected_ms: list[float] = []
        proposal = propose(
            ledger.engine, balance_ids, mode="apply", reason="measured", proposed_by="Ada", limits={}, balance_limit=0,
            progress=self._timed(self.examined_ms),
        )  # fmt: skip
        with ledger.engine.begin() as connection:
            approval = decide(connection, proposal, decision="approved", decided_by="Grace", channel="benchmark")
            begin_applying(connection, proposal.reconstruction_id, approval.approval_id)
        applied = apply(ledger.engine, proposal.reconstruction_id, progress=self._timed(self.corrected_ms))
        assert len(applied.corrections) == len(balance_ids)

    @staticmethod
    def _timed(taken_ms: list[float]) -> Progress:
        """Milliseconds of each balance, from the end of the one before it; the first one's include the beginning."""
        last = time.perf_counter()

        def note(_balance_id: str, _outcome: str) -> None:
            nonlocal last
            taken_ms.append(milliseconds_since(last))
            last = time.perf_counter()

        return note


def milliseconds_since(started: float) -> float:
    return (time.perf_counter() - started) * 1000


def bare(ledger: BenchLedger, balance_id: str, *, way: Callable[..., None] = by_the_rules, **parameters: Any) -> float:
    """Milliseconds of one bare statement in a transaction of its own."""
    started = time.perf_counter()
    with ledger.engine.begin() as connection:
        way(connection, balance_id, **parameters)
    return milliseconds_since(started)


def measure(*, balances: int, transactions: int, hot: int, ordinary: int, rounds: int) -> list[dict[str, Any]]:
    """The medians of rounds in which both ways take turns."""
    with bench_ledger(
        "correction", balances=balances, transactions=transactions, first_date=FIRST_DATE, days=HISTORY_DAYS
    ) as ledger:
        with ledger.engine.begin() as connection:
            connection.execute(text("SET LOCAL statement_timeout = 0"))
            connection.execute(
                text(HOT_TRANSACTIONS),
                {
                    "balances": balances, "transactions": hot, "days": HISTORY_DAYS, "currency": CURRENCIES[0],
                    "starts_at": datetime.combine(FIRST_DATE, datetime.min.time()),
                },
            )  # fmt: skip
        settle(ledger)
        ledger.close(FIRST_DATE + timedelta(days=HISTORY_DAYS - 1))
        ledger.tidy()
        with ledger.engine.begin() as connection:
            hot_id = connection.scalar(text("SELECT balance_id FROM blnk.balances ORDER BY id LIMIT 1"))
            assert hot_id is not None
            postings = connection.scalar(
                text("SELECT count(*) FROM blnk.transactions WHERE source = :id OR destination = :id"), {"id": hot_id}
            )
            # of the two currencies that the hot balance is not in
            ids = list(
                connection.scalars(
                    text("SELECT balance_id FROM blnk.balances WHERE id % 3 <> (SELECT min(id) % 3 FROM blnk.balances) "
                         "AND id > (SELECT min(id) + 2 FROM blnk.balances) ORDER BY id LIMIT :ordinary"),
                    {"ordinary": ordinary},
                )
            )  # fmt: skip
        return [*_hot(ledger, hot_id, int(postings or 0), rounds), *_ordinary(ledger, ids)]


def _hot(ledger: BenchLedger, balance_id: str, postings: int, rounds: int) -> list[dict[str, Any]]:
    with ledger.engine.begin() as connection:
        base = base_of(connection, open_reconstruction(connection, mode="report", selection="given"))
    rows: dict[str, list[tuple[float, float]]] = {}
    hand = []
    for number in range(rounds + 1):  # the first round warms up
        sums = bare(ledger, balance_id)
        report = bare(ledger, balance_id, way=agrees, base=base)
        applied = Applied(ledger, [balance_id])
        sums = (sums + bare(ledger, balance_id)) / 2
        if number:
            rows.setdefault("recalculate", []).append((report, sums))
            rows.setdefault("correct", []).append((applied.corrected_ms[0], sums))
            rows.setdefault("examine, with the cause", []).append((applied.examined_ms[0], sums))
            hand.append(bare(ledger, balance_id, way=by_hand))
    return [
        {
            "what": what,
            "balances": 1,
            "postings_each": postings,
            "by_hand_ms": round(median(hand), 1),
            "bare_ms": round(median(theirs for _, theirs in pairs), 1),
            "ms": round(median(mine for mine, _ in pairs), 1),
            "against_bare": f"{median(mine / theirs for mine, theirs in pairs):.2f}×",
            "limit": "" if "cause" in what else f"{LIMIT_HOT}×",
        }
        for what, pairs in rows.items()
    ]


def _ordinary(ledger: BenchLedger, ids: Sequence[str]) -> list[dict[str, Any]]:
    for _ in range(2):  # the first warms up
        sums = [bare(ledger, balance_id) for balance_id in ids]
        applied = Applied(ledger, ids)
    hand = [bare(ledger, balance_id, way=by_hand) for balance_id in ids]
    with ledger.engine.begin() as connection:
        postings = connection.scalar(
            text("SELECT count(*) FROM blnk.transactions WHERE source = ANY(:ids) OR destination = ANY(:ids)"),
            {"ids": list(ids)},
        )
    return [
        {
            "what": what,
            "balances": len(ids),
            "postings_each": round(int(postings or 0) / len(ids)),
            "by_hand_ms": round(median(hand), 2),
            "bare_ms": round(median(sums), 2),
            "ms": round(median(taken), 2),
            "against_bare": f"+{sum(taken) / len(ids) - sum(sums) / len(ids):.1f} ms",
            "limit": f"+{LIMIT_ORDINARY_MS} ms",
        }
        for what, taken in (("examine, with the cause", applied.examined_ms), ("correct", applied.corrected_ms))
    ]
