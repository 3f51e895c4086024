"""An independent oracle: what the books must say, in plain Python from the raw rows, with no SQL of the project.

It reads ``blnk.transactions`` as it stands, decides by itself which rows a cut holds, and adds integers.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from fractions import Fraction
from typing import NamedTuple

from sqlalchemy import Connection, create_engine, text
from sqlalchemy.pool import NullPool

from ledger_db.close.opening import open_interim
from ledger_db.close.runs import Run
from ledger_db.core.calendar import BusinessCalendar
from ledger_db.server.connections import make_engine
from tests.testing.books import Books, Ledger, instant


class Figures(NamedTuple):
    """One balance's four amounts in minor units."""

    credit: int
    debit: int
    inflight_credit: int
    inflight_debit: int


NOTHING = Figures(0, 0, 0, 0)


@dataclass(frozen=True)
class Cut:
    """A ``pg_snapshot`` read by hand: below ``xmin`` all is visible, from ``xmax`` on nothing, between what ended."""

    xmin: int
    xmax: int
    running: frozenset[int]

    @classmethod
    def parse(cls, written: str) -> Cut:
        xmin, xmax, running = written.split(":")
        return cls(int(xmin), int(xmax), frozenset(int(xid) for xid in running.split(",") if xid))

    def sees(self, recorded_xid: int | None) -> bool:
        if recorded_xid is None or recorded_xid < self.xmin:
            return True
        return recorded_xid < self.xmax and recorded_xid not in self.running


@dataclass(frozen=True)
class Row:
    """A transaction row as the oracle needs it."""

    transaction_id: str
    source: str | None
    destination: str | None
    status: str
    amount: int
    effective_at: datetime
    parent: str | None
    recorded_xid: int | None


def read_rows(connection: Connection) -> list[Row]:
    rows = connection.execute(
        text(
            "SELECT transaction_id, source, destination, status, precise_amount, amount, precision, created_at, "
            "effective_date, parent_transaction, CAST(recorded_xid AS text) FROM blnk.transactions"
        )
    )
    read = []
    for id_, source, destination, status, precise, amount, precision, created_at, effective, parent, xid in rows:
        minor = Fraction(precise) if precise is not None else Fraction(amount) * (precision or 1)
        assert minor == int(minor), id_
        effective_at = (effective or created_at).replace(tzinfo=UTC)
        read.append(
            Row(id_, source, destination, status, int(minor), effective_at, parent, None if xid is None else int(xid))
        )
    return read


def add_up(rows: Iterable[Row], *, before: datetime, cut: Cut | None) -> dict[str, Figures]:
    """Every balance just before an instant, as known at a cut (None: as known now)."""
    known = [row for row in rows if row.effective_at < before and (cut is None or cut.sees(row.recorded_xid))]
    holds = {row.transaction_id for row in known if row.status == "INFLIGHT"}
    sums: dict[str, list[int]] = defaultdict(lambda: [0, 0, 0, 0])
    for row in known:
        posted = row.amount if row.status == "APPLIED" else 0
        held = row.amount if row.status == "INFLIGHT" else 0
        if row.status in ("APPLIED", "VOID") and row.parent in holds:  # of both, the later instant is before
            held = -row.amount
        if row.destination is not None:
            sums[row.destination][0] += posted
            sums[row.destination][2] += held
        if row.source is not None:
            sums[row.source][1] += posted
            sums[row.source][3] += held
    return {balance: Figures(*amounts) for balance, amounts in sums.items()}


def snapshots_of(connection: Connection, run: Run) -> dict[str, Figures]:
    """What a run's snapshot rows say, by balance."""
    rows = connection.execute(
        text(
            "SELECT balance_id, s.credit_balance, s.debit_balance, s.inflight_credit_balance, s.inflight_debit_balance "
            "FROM ledger_eod.balance_snapshots AS s JOIN blnk.balances ON balances.id = s.balance_key "
            "WHERE s.run_id = :run_id"
        ),
        {"run_id": run.run_id},
    )
    found: dict[str, Figures] = {}
    for balance_id, *amounts in rows:
        assert balance_id not in found, f"{balance_id} twice"
        found[balance_id] = Figures(*(int(amount) for amount in amounts))
    return found


def difference_by_currency(connection: Connection, run: Run) -> dict[str, tuple[int, int]]:
    """Credit minus debit over a run's snapshot rows, posted and inflight."""
    rows = connection.execute(text("SELECT balance_id, currency FROM blnk.balances"))
    currency_of = {str(row.balance_id): str(row.currency) for row in rows}
    sums: dict[str, list[int]] = {}
    for balance_id, figures in snapshots_of(connection, run).items():
        sums.setdefault(currency_of[balance_id], [0, 0])
        sums[currency_of[balance_id]][0] += figures.credit - figures.debit
        sums[currency_of[balance_id]][1] += figures.inflight_credit - figures.inflight_debit
    return {currency: (posted, held) for currency, (posted, held) in sums.items()}


def without_zeros(figures: Mapping[str, Figures]) -> dict[str, Figures]:
    return {balance: amounts for balance, amounts in figures.items() if amounts != NOTHING}


def assert_proved(books: Books, run: Run, *, everything: bool = False) -> None:
    """Each snapshot row is the from-source sum at the run's cut, every balance has one, each currency sums to zero.

    ``everything``: all rows are in the cut, for a restored copy whose rows carry ids of another cluster.
    """
    with books.engine.connect() as connection:
        found = snapshots_of(connection, run)
        expected = add_up(read_rows(connection), before=run.closes_at, cut=None if everything else Cut.parse(run.cut))
        eligible = set(
            connection.scalars(
                text("SELECT balance_id FROM ledger_eod.captured_balances WHERE first_run_id <= :run_id"),
                {"run_id": run.run_id},
            )
        )
        assert set(found) == eligible
        assert without_zeros(found) == without_zeros(expected)
        assert set(difference_by_currency(connection, run).values()) <= {(0, 0)}


def open_interim_at(
    books: Books, now: str, *, business_date: str | None = None, calendar: BusinessCalendar | None = None
) -> Run | None:
    """Open an interim run at an instant; None when it has nothing to capture."""
    at = instant(now)
    with books.engine.begin() as connection:
        return open_interim(
            connection, calendar=calendar or BusinessCalendar(), now=at,
            business_date=None if business_date is None else datetime.fromisoformat(business_date).date(),
        )  # fmt: skip


def interim(books: Books, now: str, *, business_date: str | None = None) -> Run:
    """A certified interim run."""
    run = open_interim_at(books, now, business_date=business_date)
    assert run is not None
    return books.finish(run)


@contextmanager
def clone(ledger: Ledger) -> Iterator[Ledger]:
    """A copy of a ledger's database in the same cluster, while nobody is connected to it: an undisturbed world."""
    name = f"{ledger.url.database}_clone"
    ledger.engine.dispose()
    administration = create_engine(
        ledger.url.set(database="postgres"), isolation_level="AUTOCOMMIT", poolclass=NullPool
    )
    with administration.connect() as connection:
        connection.execute(
            text("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = :name"),
            {"name": ledger.url.database},
        )
        connection.execute(text(f"CREATE DATABASE {name} TEMPLATE {ledger.url.database}"))
    url = ledger.url.set(database=name)
    engine = make_engine(url)
    try:
        yield Ledger(url, engine)
    finally:
        engine.dispose()
        with administration.connect() as connection:
            connection.execute(text(f"DROP DATABASE {name} WITH (FORCE)"))
        administration.dispose()
