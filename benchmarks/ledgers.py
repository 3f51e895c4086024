"""Ledgers for measuring: made by the database itself, in databases that are dropped afterwards."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from datetime import UTC, date, datetime, timedelta

from sqlalchemy import Engine, create_engine, text
from sqlalchemy.pool import QueuePool

from ledger_db.attach.migrate import migrate
from ledger_db.books.tables import TRANSACTION_INDEXES
from ledger_db.close.certification import certify_run
from ledger_db.close.driver import close_day, count_rows
from ledger_db.close.opening import open_close
from ledger_db.close.runs import Run
from ledger_db.close.snapshots import ensure_partition, plan_key_ranges, write_snapshot_batch
from ledger_db.core.calendar import BusinessCalendar
from ledger_db.core.key_ranges import KeyRange
from ledger_db.postings.rules import Status
from ledger_db.server import connections as database
from ledger_db.settings import get_settings

CALENDAR = BusinessCalendar()
CURRENCIES = ("USD", "EUR", "GBP")

BALANCES = """
INSERT INTO blnk.balances (balance_id, balance, credit_balance, debit_balance, currency, ledger_id)
SELECT
    'bln_' || CAST(md5(CAST(i AS text)) AS uuid), 0, 0, 0,
    (CAST(:currencies AS text []))[1 + i % 3], 'general_ledger_id'
FROM generate_series(0, CAST(:balances AS integer) - 1) AS i
"""

# Spread evenly over [starts_at, starts_at + days); one in hot_every moves a hot balance, and one in a hundred counts a
# day earlier than it is recorded. Each row stays within one currency: balance 0 is hot or, of three, 1 or 2 as well.
TRANSACTIONS = """
INSERT INTO blnk.transactions (
    transaction_id, source, destination, reference, amount, precise_amount, precision, currency, status, created_at,
    effective_date, parent_transaction
)
SELECT
    'txn_' || CAST(md5(CAST(i AS text)) AS uuid),
    'bln_' || CAST(md5(CAST(CASE WHEN is_hot THEN currency ELSE 3 * (h1 % (:balances / 3)) + currency END AS text))
        AS uuid),
    'bln_' || CAST(md5(CAST(3 * (h2 % (:balances / 3)) + currency AS text)) AS uuid),
    'ref_' || i, CAST(100 + h1 % 100000 AS numeric) / 100, 100 + h1 % 100000, 100,
    (CAST(:currencies AS text []))[1 + currency],
    CASE WHEN i % :pair_every = :pair_every - 2 THEN COALESCE(:parents, 'APPLIED') ELSE 'APPLIED' END, at,
    COALESCE(CAST(:effective_at AS timestamp), CASE WHEN i % 100 = 7 THEN at - interval '1 day' ELSE at END),
    CASE WHEN like_row < i THEN 'txn_' || CAST(md5(CAST(like_row AS text)) AS uuid) END
FROM (
    SELECT
        i, like_row, at,
        like_row % :hot_every = 0 AS is_hot,
        CASE WHEN like_row % :hot_every = 0 THEN like_row % :hot_balances ELSE like_row % 3 END AS currency,
        hashint8extended(like_row, 1) & 9223372036854775807 AS h1,
        hashint8extended(like_row, 2) & 9223372036854775807 AS h2
    FROM (
        SELECT
            i,
            CASE WHEN CAST(:parents AS text) IS NOT NULL AND i % :pair_every = :pair_every - 1 THEN i - 1 ELSE i END
                AS like_row,
            CAST(:starts_at AS timestamp) + (i - :first) * (make_interval(days => :days) / :transactions) AS at
        FROM generate_series(CAST(:first AS bigint), CAST(:first AS bigint) + :transactions - 1) AS i
    ) AS paired
) AS numbered
"""


@dataclass(frozen=True)
class Mix:
    """What is not alike in all generated transactions.

    ``parents``: the status of one transaction in ``pair_every``, of which the next one is the applied child.
    ``effective_at``: one instant for all.
    """

    hot_every: int = 100
    hot_balances: int = 3
    effective_at: datetime | None = None
    parents: Status | None = None
    pair_every: int = 2


ORDINARY = Mix()


@dataclass
class BenchLedger:
    """A generated ledger in a database of its own."""

    engine: Engine
    balances: int
    transactions: int = 0

    def add_transactions(self, count: int, *, first_date: date, days: int, mix: Mix = ORDINARY) -> None:
        """Record transactions spread over some days, in one database transaction."""
        with self.engine.begin() as connection:
            connection.execute(text("SET LOCAL statement_timeout = 0"))
            connection.execute(
                text(TRANSACTIONS),
                {
                    "first": self.transactions, "transactions": count, "balances": self.balances, "days": days,
                    "starts_at": datetime.combine(first_date, datetime.min.time()), "currencies": list(CURRENCIES),
                    **asdict(mix),
                },
            )  # fmt: skip
        self.transactions += count

    def load(self, count: int, *, first_date: date, days: int, mix: Mix = ORDINARY) -> None:
        """Record many transactions: without our indexes, which are built afterwards."""
        with self.engine.begin() as connection:
            for index in TRANSACTION_INDEXES:
                index.drop(connection)
            connection.execute(text("ALTER TABLE blnk.transactions DISABLE TRIGGER ALL"))
        self.add_transactions(count, first_date=first_date, days=days, mix=mix)
        with self.engine.begin() as connection:
            connection.execute(text("SET LOCAL statement_timeout = 0"))
            connection.execute(text("ALTER TABLE blnk.transactions ENABLE TRIGGER ALL"))
            for index in TRANSACTION_INDEXES:
                index.create(connection)

    def tidy(self, *others: str) -> None:
        """Bring visibility map and statistics up to date, as autovacuum would have by night; of other tables, too."""
        with self.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
            connection.execute(text("SET statement_timeout = 0"))
            for table in (
                "blnk.balances",
                "blnk.transactions",
                "ledger_eod.activity",
                "ledger_eod.balance_snapshots",
                *others,
            ):
                connection.execute(text(f"VACUUM (ANALYZE) {table}"))
            connection.execute(text("CHECKPOINT"))

    def temp_bytes(self) -> int:
        """What the database wrote to temporary files so far; no session may be at work."""
        assert isinstance(self.engine.pool, QueuePool)
        with ExitStack() as stack:
            idle = [stack.enter_context(self.engine.connect()) for _ in range(max(self.engine.pool.checkedin(), 1))]
            for connection in idle:  # a session reports what it wrote a second late, unless asked
                connection.execute(text("SELECT pg_stat_force_next_flush()"))
                connection.commit()
            return int(
                idle[0].scalar(text("SELECT temp_bytes FROM pg_stat_database WHERE datname = current_database()")) or 0
            )

    def open(self, business_date: date, *, count: bool = True) -> Run:
        """Open a close, and count its rows unless told otherwise."""
        with self.engine.begin() as connection:
            run = open_close(connection, business_date=business_date, calendar=CALENDAR, now=_tomorrow())
            ensure_partition(connection, business_date)
        if count:
            count_rows(self.engine, run.run_id)
        return run

    def close(self, business_date: date, *, batch_size: int = 10_000) -> Run:
        """Close a date, one batch after the other."""
        return close_day(
            self.engine, business_date, calendar=CALENDAR, now=_tomorrow(), batch_size=batch_size
        ).run  # fmt: skip

    def plan(self, run: Run, batch_size: int) -> list[KeyRange]:
        """The key ranges a run lacks."""
        with self.engine.begin() as connection:
            return plan_key_ranges(connection, run.run_id, batch_size=batch_size)

    def write(self, run: Run, keys: KeyRange) -> int:
        """One batch in a transaction of its own."""
        with self.engine.begin() as connection:
            return write_snapshot_batch(connection, run.run_id, keys)

    def certify(self, run: Run) -> Run:
        """Prove the run."""
        with self.engine.begin() as connection:
            return certify_run(connection, run.run_id)


def _tomorrow() -> datetime:
    return datetime.now(UTC) + timedelta(days=1)


@contextmanager
def bench_ledger(name: str, *, balances: int, transactions: int, first_date: date, days: int) -> Iterator[BenchLedger]:
    """A ledger of that size, dropped at the end; loaded without our indexes, which are then built."""
    server = database.ledger_url(make=True)
    url = server.set(database=f"ledger_eod_bench_{name}_{os.getpid()}")
    admin = create_engine(server, isolation_level="AUTOCOMMIT")
    with admin.connect() as connection:
        connection.execute(text(f"CREATE DATABASE {url.database}"))
    engine = database.make_engine(url)
    ledger = BenchLedger(engine, balances)
    try:
        migrate(engine)
        with engine.begin() as connection:
            connection.execute(text("SET LOCAL statement_timeout = 0"))
            connection.execute(text(BALANCES), {"balances": balances, "currencies": list(CURRENCIES)})
        ledger.load(transactions, first_date=first_date, days=days)
        ledger.tidy()
        yield ledger
    finally:
        engine.dispose()
        with admin.connect() as connection:
            connection.execute(text(f"DROP DATABASE IF EXISTS {url.database} WITH (FORCE)"))
        admin.dispose()
        get_settings.cache_clear()
