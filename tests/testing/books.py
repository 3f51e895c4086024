"""Books in the tests' words: a table of transactions in, exact text out.

In a table, names stand for balances: ``wallet`` is the application balance ``bln_wallet``, ``@world`` the internal one
of that name, one per currency; both are made where they are mentioned first. A ``bln_…`` id stands for itself. Every
instant is UTC. Amounts have two decimals (precision 100).
"""

from __future__ import annotations

import itertools
import re
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from fractions import Fraction
from typing import Any, cast

from sqlalchemy import URL, Connection, Engine, text

from ledger_db.books.accounts import create_balance
from ledger_db.books.recording import Movement, apply_recorded, newest_recorded_key, record_many
from ledger_db.close.driver import resume_run
from ledger_db.close.opening import dates_to_close, open_close
from ledger_db.close.runs import Run, certified_close_of
from ledger_db.core.calendar import BusinessCalendar
from ledger_db.history.balance_at import BalanceAt, balance_at
from ledger_db.postings.rules import Status

PRECISION = 100
COLUMNS = frozenset(
    {"recorded", "effective", "source", "destination", "amount", "status", "reference", "parent", "description"}
)


@dataclass(frozen=True)
class Ledger:
    """One test's own database."""

    url: URL
    engine: Engine


def instant(written: str) -> datetime:
    """An instant as the tests write it: ``2026-01-31`` or ``2026-01-31 23:59[:30]``, UTC; an offset is kept."""
    parsed = datetime.fromisoformat(written)
    return parsed if parsed.tzinfo is not None else parsed.replace(tzinfo=UTC)


def minor(amount: str) -> int:
    """``1200.00`` as minor units.

    Raises:
        ValueError: more than two decimals.
    """
    value = Fraction(amount) * PRECISION  # exact: Decimal arithmetic rounds at 28 digits
    if value != int(value):
        raise ValueError(f"{amount} has more than two decimals")
    return int(value)


def major(amount_minor: int | Decimal) -> str:
    """Minor units as the tests write them, always with two decimals; a fraction of one is shown, not rounded."""
    if amount_minor != int(amount_minor):
        return f"{amount_minor} minor units"
    sign, digits = ("-" if amount_minor < 0 else ""), f"{abs(int(amount_minor)):03d}"
    return f"{sign}{digits[:-2]}.{digits[-2:]}"


def read_table(table: str) -> list[dict[str, str]]:
    """The rows of a table whose cells are two or more spaces apart; ``-`` is an empty cell.

    Raises:
        ValueError: a row has more or fewer cells than the header.
    """
    lines = [re.split(r"\s{2,}", line.strip()) for line in table.strip().splitlines() if line.strip()]
    header, *rows = lines
    for row in rows:
        if len(row) != len(header):
            raise ValueError(f"{len(header)} columns ({', '.join(header)}), {len(row)} cells: {'  '.join(row)}")
    return [{name: cell for name, cell in zip(header, row, strict=True) if cell != "-"} for row in rows]


class Books:
    """The books of one ledger."""

    def __init__(self, ledger: Ledger) -> None:
        self.ledger = ledger
        self.engine = ledger.engine
        self._numbers = itertools.count(1)

    # Postings -----------------------------------------------------------------------------------------------------

    def post(self, table: str) -> list[str]:
        """Record a table of transactions in one database transaction and return their ids.

        Columns: source, destination, amount (``12.50 USD``); optional: recorded (``created_at``), effective
        (``effective_date``), status (APPLIED unless given), reference, parent (a reference), description. The id of a
        transaction is ``txn_`` and its reference.
        """
        with self.engine.begin() as connection:
            return record_many(connection, [self._movement(connection, row) for row in read_table(table)])

    def post_on(self, connection: Connection, table: str) -> list[str]:
        """Record a table of transactions in a database transaction of the test's own, which it commits."""
        return record_many(connection, [self._movement(connection, row) for row in read_table(table)])

    def insert(self, *, stored_too: bool = True, **columns: Any) -> str:
        """Insert one transaction row as it stands, past every check, and return its id.

        For rows that ``ledger_db.books`` refuses: cross-currency ones, without ``precise_amount``, orphans. ``source``
        and ``destination`` are balance ids. The stored balance rows follow it unless ``stored_too`` is off.
        """
        reference = f"raw{next(self._numbers)}"
        row = {
            "transaction_id": f"txn_{columns.get('reference', reference)}",
            "reference": reference,
            "status": "APPLIED",
            "precision": PRECISION,
        } | columns
        with self.engine.begin() as connection:
            after_key = newest_recorded_key(connection)
            names = ", ".join(row)
            values = ", ".join(f":{name}" for name in row)
            connection.execute(text(f"INSERT INTO blnk.transactions ({names}) VALUES ({values})"), row)
            if stored_too:
                apply_recorded(connection, after_key=after_key)
        return str(row["transaction_id"])

    def fill_part(self) -> None:
        """Take the last key of a part, for a row that never counts, and go on behind it.

        What is counted in advance ends where a part of 1,024 keys does.
        """
        with self.engine.begin() as connection:
            last = int(connection.scalar(text("SELECT last_value FROM blnk.transactions_id_seq")) or 0)
            key = last | 1023
            if key != last:
                connection.execute(
                    text(
                        "INSERT INTO blnk.transactions (id, transaction_id, status, precise_amount, created_at) "
                        "VALUES (:key, 'txn_part_' || :key, 'REJECTED', 0, '2025-01-01') ON CONFLICT DO NOTHING"
                    ),
                    {"key": key},
                )
                connection.execute(text("SELECT setval('blnk.transactions_id_seq', :key)"), {"key": key})

    def execute(self, statement: str, **parameters: Any) -> int:
        """Run one statement in a transaction of its own, for instance to break the books; returns the row count."""
        with self.engine.begin() as connection:
            return connection.execute(text(statement), parameters).rowcount

    def rows(self, statement: str, **parameters: Any) -> list[tuple[Any, ...]]:
        """The rows a statement returns."""
        with self.engine.connect() as connection:
            return [tuple(row) for row in connection.execute(text(statement), parameters)]

    def _movement(self, connection: Connection, row: dict[str, str]) -> Movement:
        if not row.keys() <= COLUMNS:
            raise ValueError(f"unknown columns: {', '.join(sorted(row.keys() - COLUMNS))}")
        amount, currency = row["amount"].split(" ")
        reference = row.get("reference") or f"r{next(self._numbers)}"
        return Movement(
            source=self.open(row["source"], currency, connection=connection),
            destination=self.open(row["destination"], currency, connection=connection),
            amount_minor=minor(amount),
            currency=currency,
            status=cast("Status", row.get("status", "APPLIED")),
            reference=reference,
            description=row.get("description"),
            precision=PRECISION,
            created_at=instant(row["recorded"]) if "recorded" in row else None,
            effective_date=instant(row["effective"]) if "effective" in row else None,
            parent_transaction=f"txn_{row['parent']}" if "parent" in row else None,
            transaction_id=f"txn_{reference}",
        )

    # Balances -----------------------------------------------------------------------------------------------------

    def open(self, name: str, currency: str = "USD", *, connection: Connection | None = None) -> str:
        """The id of the balance of this name; it is made at zero unless it is there."""
        if connection is None:
            with self.engine.begin() as own:
                return self.open(name, currency, connection=own)
        balance_id = self.id_of(name, currency)
        present = connection.scalar(
            text("SELECT count(*) FROM blnk.balances WHERE balance_id = :balance_id"), {"balance_id": balance_id}
        )
        if not present:
            indicator = name if name.startswith("@") else None
            create_balance(connection, currency=currency, indicator=indicator, balance_id=balance_id)
        return balance_id

    def id_of(self, name: str, currency: str = "USD") -> str:
        """The id that a balance of this name has; ``currency`` tells internal balances of one name apart."""
        if name.startswith("bln_"):
            return name
        return f"bln_{name[1:]}_{currency.lower()}" if name.startswith("@") else f"bln_{name}"

    def balance(
        self,
        name: str,
        *,
        at: str | None = None,
        known_at: str | int | None = None,
        from_source: bool = False,
        currency: str = "USD",
    ) -> str:
        """What the balance was just before ``at``, or what the stored row says now when ``at`` is not given.

        ``known_at`` is the business date of a certified close, or a run's id.
        """
        if at is None:
            return self.stored(name, currency=currency)
        return major(self._at(name, at, known_at, from_source, currency).balance)

    def inflight(
        self,
        name: str,
        *,
        at: str | None = None,
        known_at: str | int | None = None,
        from_source: bool = False,
        currency: str = "USD",
    ) -> str:
        """What was on hold just before ``at``, or what the stored row says now; arguments as for ``balance``."""
        if at is None:
            return self.stored(name, "inflight_balance", currency=currency)
        return major(self._at(name, at, known_at, from_source, currency).inflight_balance)

    def stored(self, name: str, column: str = "balance", *, currency: str = "USD") -> str:
        """An amount of the stored balance row."""
        ((amount,),) = self.rows(
            f"SELECT {column} FROM blnk.balances WHERE balance_id = :balance_id",
            balance_id=self.id_of(name, currency),
        )
        return major(amount)

    def stored_rows(self) -> list[tuple[Any, ...]]:
        """Every balance row, whole: what a test compares to say that nothing moved."""
        return self.rows("SELECT * FROM blnk.balances ORDER BY id")

    def difference(self) -> list[tuple[str, str, str]]:
        """Per currency: what all stored balances add up to, posted and inflight; books that balance say zero."""
        return [
            (currency, major(posted), major(held))
            for currency, posted, held in self.rows(
                "SELECT currency, sum(balance), sum(inflight_balance) FROM blnk.balances GROUP BY 1 ORDER BY 1"
            )
        ]

    def _at(self, name: str, at: str, known_at: str | int | None, from_source: bool, currency: str) -> BalanceAt:
        with self.engine.connect() as connection:
            run_id = known_at
            if isinstance(known_at, str):
                run_id = certified_close_of(connection, date.fromisoformat(known_at)).run_id
            return balance_at(
                connection, self.id_of(name, currency), instant(at),
                known_at=cast("int | None", run_id), from_source=from_source,
            )  # fmt: skip

    # Closes -------------------------------------------------------------------------------------------------------

    def open_day(
        self, business_date: str, *, now: str | datetime | None = None, calendar: BusinessCalendar | None = None
    ) -> Run:
        """Open a day's close and take its cut; ``now`` is five minutes after the date has ended unless given."""
        calendar = calendar or BusinessCalendar()
        day = date.fromisoformat(business_date)
        if now is None:
            now = calendar.closes_at(day) + timedelta(minutes=5)
        elif isinstance(now, str):
            now = instant(now)
        with self.engine.connect() as connection:
            due = dates_to_close(connection, last_ended=max(calendar.last_ended(now), day), until=day)
            unfinished = connection.scalar(text("SELECT count(*) FROM ledger_eod.runs WHERE status = 'open'"))
        between = [earlier for earlier in due if earlier < day and not unfinished]
        for earlier in between:  # closes follow one another
            with self.engine.begin() as connection:
                run = open_close(connection, business_date=earlier, calendar=calendar, now=now)
            self.finish(run, batch_size=1000)
        with self.engine.begin() as connection:
            return open_close(connection, business_date=day, calendar=calendar, now=now)

    def close_day(
        self,
        business_date: str,
        *,
        now: str | datetime | None = None,
        calendar: BusinessCalendar | None = None,
        batch_size: int = 2,
    ) -> Run:
        """Close one day, each step in a database transaction of its own, and return the certified run."""
        return self.finish(self.open_day(business_date, now=now, calendar=calendar), batch_size=batch_size)

    def finish(self, run: Run, *, batch_size: int = 2) -> Run:
        """Do what is left of a run: activity, partition, snapshots, certification."""
        return resume_run(self.engine, run.run_id, batch_size=batch_size).run


def unguarded(books: Books, table: str, statement: str, *, rows: int = 1) -> None:
    """A change of so many rows by somebody who may switch triggers off."""
    books.execute(f"ALTER TABLE {table} DISABLE TRIGGER USER")
    assert books.execute(statement) == rows
    books.execute(f"ALTER TABLE {table} ENABLE TRIGGER USER")
