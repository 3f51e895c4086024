"""A synthetic ledger of any size: determined by its seed, loaded with COPY in the order of recording.

Each recording day has its own random numbers and each transaction its recording instant, so loading day by day gives
the same rows as loading everything at once. The later rows of a transaction (commits and void of a hold, a refund, the
applied copy of a queued row) are decided together with it and wait in a heap until their instant. Memory holds the ids
of the balances and the waiting rows, never all transactions.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from random import Random
from typing import Final, NamedTuple

from sqlalchemy import Connection, Engine, exists, select, text

from ledger_db.books.accounts import create_balance
from ledger_db.books.recording import apply_recorded, driver_connection, newest_recorded_key
from ledger_db.books.tables import GENERAL_LEDGER_ID, balances
from ledger_db.core.amounts import NO_PARTS, Amounts
from ledger_db.errors import BookingRefused, UnknownBalance
from ledger_db.postings.rules import SETTLING
from ledger_db.server.connections import without_time_limit

WORLD: Final = "@World"
#: The later rows of a transaction are recorded within this many days of it.
LONGEST_LIFE_DAYS: Final = 4
#: Shares of all transactions: queued first and applied later; rejected by the application.
QUEUED_SHARE: Final = 0.02
REJECTED_SHARE: Final = 0.01
#: Share of the transactions between an internal and an application balance; share of those that bring money in.
WORLD_SHARE: Final = 0.30
FUNDING_SHARE: Final = 0.70
#: Share of the balances that have an owner.
OWNED_SHARE: Final = 0.60
COPY_ROWS: Final = 2_000

FIRST_NAMES: Final = ("Ada", "Bo", "Chidi", "Dora", "Emre", "Femi", "Grace", "Hana", "Ivo", "Juno")
LAST_NAMES: Final = ("Adeyemi", "Brandt", "Costa", "Demir", "Eze", "Fischer", "Ito", "Kaya", "Novak", "Okoro")

MICROSECONDS_A_DAY: Final = 86_400_000_000
NULL: Final = r"\N"  # as COPY writes it


@dataclass(frozen=True)
class GeneratorSpec:
    """What to generate. Shares are of the opening transactions; ``transactions`` counts their later rows too.

    There are ``days`` recording days in UTC, from ``first_date`` on. No row is effective before ``first_date``.
    """

    first_date: date
    balances: int = 10_000
    transactions: int = 100_000
    days: int = 30
    seed: int = 1
    currencies: tuple[str, ...] = ("USD", "EUR", "GBP")
    hot_balances: int = 10
    hot_share: float = 0.30
    inflight_share: float = 0.05
    refund_share: float = 0.02
    late_share: float = 0.02
    late_max_days: int = 3
    future_share: float = 0.005

    def __post_init__(self) -> None:
        if self.days < 1 or self.transactions < 0 or not self.currencies:
            raise BookingRefused("a synthetic ledger needs a day, a currency and no negative count")
        if len(set(self.currencies)) < len(self.currencies):
            raise BookingRefused("a currency is given twice")
        if self.balances < 2 * len(self.currencies):
            raise BookingRefused(f"{len(self.currencies)} currencies need {2 * len(self.currencies)} balances at least")
        if self.hot_balances < 0 or self.late_max_days < 1:
            raise BookingRefused("hot_balances is 0 or more, late_max_days 1 or more")
        shares = (self.inflight_share, self.refund_share, self.late_share, self.future_share)
        if min(*shares, self.hot_share) < 0 or self.hot_share > 1 or sum(shares) + QUEUED_SHARE + REJECTED_SHARE > 1:
            raise BookingRefused("shares are between 0 and 1, and together at most 0.97")

    @property
    def end_date(self) -> date:
        """The day after the last recording day."""
        return self.first_date + timedelta(days=self.days)


@dataclass(frozen=True)
class GeneratorResult:
    """How many rows were created, and how many stored balance rows they changed."""

    balance_count: int
    transaction_count: int
    moved_balance_count: int


class _Row(NamedTuple):
    """One transaction. Instants are microseconds since the first date; ``recorded`` is first, as rows sort by it."""

    recorded: int
    reference: str
    transaction_id: str
    source: str
    destination: str
    amount_minor: int
    currency: str
    status: str
    created: int
    effective: int | None
    parent: str | None


def generate(connection: Connection, spec: GeneratorSpec) -> GeneratorResult:
    """Create the balances and all transactions of a synthetic ledger in the caller's database transaction.

    Raises:
        BookingRefused: the ledger holds this seed's balances already.
    """
    balance_count = generate_balances(connection, spec)
    loaded = load_transactions(connection, spec)
    return GeneratorResult(balance_count, loaded.transaction_count, loaded.moved_balance_count)


def generate_balances(connection: Connection, spec: GeneratorSpec) -> int:
    """Create the balances at zero, their owners, and for each currency the internal balance that funds them.

    An internal balance that exists already is used. Returns how many application balances were created.

    Raises:
        BookingRefused: the ledger holds this seed's balances already.
    """
    random = Random(f"{spec.seed} balances")  # noqa: S311 - figures, not secrets
    names = _balance_ids(spec)
    first = names[spec.currencies[0]][0]
    if connection.scalar(select(exists().where(balances.c.balance_id == first))):
        raise BookingRefused(f"seed {spec.seed} is in this ledger already: take another one")
    for currency in spec.currencies:
        if _world_id(connection, currency) is None:
            create_balance(connection, currency=currency, indicator=f"{WORLD}-{currency}")
    owners = [f"idt_{_uuid(random)}" for _ in range(max(1, spec.balances // 5))]
    cursor = driver_connection(connection).cursor()
    with cursor.copy("COPY blnk.identity (identity_id, first_name, last_name, identity_type) FROM STDIN") as copy:
        for owner in owners:
            copy.write_row((owner, random.choice(FIRST_NAMES), random.choice(LAST_NAMES), "individual"))
    zero = Amounts.of_parts(NO_PARTS).as_columns()
    columns = ("balance_id", "currency", "ledger_id", "identity_id", *zero)
    with cursor.copy(f"COPY blnk.balances ({', '.join(columns)}) FROM STDIN") as copy:
        for position in range(spec.balances):
            currency = spec.currencies[position % len(spec.currencies)]
            balance_id = names[currency][position // len(spec.currencies)]
            identity_id = random.choice(owners) if random.random() < OWNED_SHARE else None
            copy.write_row((balance_id, currency, GENERAL_LEDGER_ID, identity_id, *zero.values()))
    return spec.balances


def load_transactions(
    connection: Connection,
    spec: GeneratorSpec,
    *,
    recorded_from: date | None = None,
    recorded_until: date | None = None,
) -> GeneratorResult:
    """Load what is recorded in ``[recorded_from, recorded_until)``; by default everything.

    Load each part once, in the order of the days. The stored balance rows are locked in key order and updated in the
    same database transaction.

    Raises:
        UnknownBalance: the balances were not created.
        psycopg.errors.UniqueViolation: the part was loaded before.
    """
    worlds = {currency: _world_id(connection, currency) for currency in spec.currencies}
    missing = [currency for currency, balance_id in worlds.items() if balance_id is None]
    if missing:
        raise UnknownBalance(f"there is no {WORLD}-{missing[0]}: make the balances before their transactions")
    rows = _rows(
        spec,
        {currency: str(balance_id) for currency, balance_id in worlds.items()},
        max(recorded_from or spec.first_date, spec.first_date),
        min(recorded_until or spec.end_date, spec.end_date),
    )
    after_key = newest_recorded_key(connection)
    without_time_limit(connection)
    count = 0
    with (
        driver_connection(connection).cursor() as cursor,
        cursor.copy(
            "COPY blnk.transactions (transaction_id, source, destination, description, reference, amount, "
            "precise_amount, precision, currency, status, created_at, effective_date, parent_transaction) FROM STDIN"
        ) as copy,
    ):
        for lines in _copy_lines(spec, rows):
            copy.write("".join(lines))
            count += len(lines)
    return GeneratorResult(0, count, apply_recorded(connection, after_key=after_key))


def analyze(engine: Engine) -> None:
    """Update the planner's statistics and the visibility map of the ledger's two large tables, after a load."""
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.execute(text("SET statement_timeout = 0"))
        for table in ("balances", "transactions"):
            connection.execute(text(f"VACUUM (ANALYZE) blnk.{table}"))


def _world_id(connection: Connection, currency: str) -> str | None:
    return connection.scalar(
        select(balances.c.balance_id).where(
            balances.c.indicator == f"{WORLD}-{currency}", balances.c.currency == currency
        )
    )


def _uuid(random: Random) -> str:
    digits = f"{random.getrandbits(128):032x}"
    return f"{digits[:8]}-{digits[8:12]}-{digits[12:16]}-{digits[16:20]}-{digits[20:]}"


def _balance_ids(spec: GeneratorSpec) -> dict[str, list[str]]:
    """The application balances' ids by currency, determined by the seed alone."""
    random = Random(f"{spec.seed} balance ids")  # noqa: S311
    names: dict[str, list[str]] = {currency: [] for currency in spec.currencies}
    for position in range(spec.balances):
        names[spec.currencies[position % len(spec.currencies)]].append(f"bln_{_uuid(random)}")
    return names


def _rows(spec: GeneratorSpec, worlds: dict[str, str], since: date, until: date) -> Iterator[_Row]:
    """The transactions recorded in ``[since, until)``, in recording order."""
    names = _balance_ids(spec)
    pending: list[_Row] = []
    first = max((since - spec.first_date).days - LONGEST_LIFE_DAYS, 0)  # earlier days have no later rows left
    wanted = (since - spec.first_date).days * MICROSECONDS_A_DAY
    for day in range(first, (until - spec.first_date).days):
        for family in _Day(spec, names, worlds, day).families():
            opening = family[0]
            while pending and pending[0] < opening:
                row = heapq.heappop(pending)
                if row.recorded >= wanted:
                    yield row
            if opening.recorded >= wanted:
                yield opening
            for row in family[1:]:
                heapq.heappush(pending, row)
        end = (day + 1) * MICROSECONDS_A_DAY
        while pending and pending[0].recorded < end:
            row = heapq.heappop(pending)
            if row.recorded >= wanted:
                yield row


class _Day:
    """One recording day. A family is an opening transaction and its later rows; families are in order of opening."""

    def __init__(self, spec: GeneratorSpec, names: dict[str, list[str]], worlds: dict[str, str], day: int) -> None:
        self.spec = spec
        self.names = names
        self.worlds = worlds
        self.day = day
        self.end_of_time = spec.days * MICROSECONDS_A_DAY
        self.random = Random(f"{spec.seed} day {day}")  # noqa: S311
        self.number = 0

    def families(self) -> Iterator[list[_Row]]:
        """As many families as fill the day's part of ``spec.transactions``, rows on later days included."""
        spec = self.spec
        left = spec.transactions // spec.days + (self.day < spec.transactions % spec.days)
        start = self.day * MICROSECONDS_A_DAY
        step = MICROSECONDS_A_DAY // max(left, 1)
        slot = 0
        while left > 0:
            recorded = start + slot * step + int(self.random.random() * step)
            family = self._family(recorded, left)
            yield family
            left -= len(family)
            slot += 1

    def _family(self, recorded: int, left: int) -> list[_Row]:
        """An opening transaction with its later rows, ``left`` rows at most."""
        spec = self.spec
        opening = self._opening(recorded)
        kind = self.random.random()
        for share, make in (
            (spec.inflight_share, self._hold),
            (spec.refund_share, self._refunded),
            (QUEUED_SHARE, self._queued),
        ):
            if kind < share:
                family = make(opening)
                # rows after the last day, or beyond the day's part, are left out
                return [row for row in family if row.recorded < self.end_of_time][:left]
            kind -= share
        if kind < REJECTED_SHARE:
            return [opening._replace(status="REJECTED")]
        kind -= REJECTED_SHARE
        if kind < spec.late_share:
            effective = max(recorded - self._between(1, spec.late_max_days * MICROSECONDS_A_DAY), 0)
            if self.random.random() < 0.5:  # back-dated; otherwise queued earlier and applied only now
                return [opening._replace(effective=effective)]
            return [opening._replace(created=effective)]
        kind -= spec.late_share
        if kind < spec.future_share:
            return [opening._replace(effective=recorded + self._between(1, 7 * MICROSECONDS_A_DAY))]
        return [opening]

    def _opening(self, recorded: int) -> _Row:
        random = self.random
        currency = self.spec.currencies[int(random.random() * len(self.spec.currencies))]
        one = self._application_balance(currency)
        if random.random() < WORLD_SHARE:
            world = self.worlds[currency]
            funding = random.random() < FUNDING_SHARE
            source, destination = (world, one) if funding else (one, world)
            amount = int(random.random() * (5_000_00 if funding else 500_00)) + 1
        else:
            source, destination = one, self._application_balance(currency)
            amount = int(random.random() * 300_00) + 1
        self.number += 1
        return _Row(
            recorded, f"gen-{self.spec.seed}-{self.day}-{self.number}", f"txn_{_uuid(random)}", source, destination,
            amount, currency, "APPLIED", recorded, None, None,
        )  # fmt: skip

    def _application_balance(self, currency: str) -> str:
        names = self.names[currency]
        hot = min(self.spec.hot_balances // len(self.spec.currencies) + 1, len(names))
        if self.spec.hot_balances and self.random.random() < self.spec.hot_share:
            return names[int(self.random.random() * hot)]
        return names[int(self.random.random() * len(names))]

    def _hold(self, opening: _Row) -> list[_Row]:
        """A hold, and later up to two commits and a void of the rest; some holds stay open."""
        hold = opening._replace(status="INFLIGHT")
        family = [hold]
        remaining = hold.amount_minor
        at = hold.recorded
        applied, void = SETTLING
        for ending in (applied, applied, void):
            if remaining == 0 or self.random.random() < 0.15:
                break
            at += self._between(60_000_000, MICROSECONDS_A_DAY)
            amount = remaining
            if ending == applied and self.random.random() < 0.5:
                amount = self._between(1, remaining)
            family.append(self._child(hold, len(family), at)._replace(status=ending, amount_minor=amount))
            remaining -= amount
        return family

    def _refunded(self, opening: _Row) -> list[_Row]:
        at = opening.recorded + self._between(60_000_000, 3 * MICROSECONDS_A_DAY)
        back = self._child(opening, 1, at)
        return [opening, back._replace(source=opening.destination, destination=opening.source)]

    def _queued(self, opening: _Row) -> list[_Row]:
        """A queued row and its applied copy, which keeps the instant of queueing as ``created_at``."""
        at = opening.recorded + self._between(1_000_000, MICROSECONDS_A_DAY // 4)
        return [opening._replace(status="QUEUED"), self._child(opening, 1, at)._replace(created=opening.created)]

    def _child(self, parent: _Row, number: int, at: int) -> _Row:
        return parent._replace(
            recorded=at, created=at, reference=f"{parent.reference}-{number}", status="APPLIED",
            transaction_id=f"txn_{_uuid(self.random)}", parent=parent.transaction_id,
        )  # fmt: skip

    def _between(self, least: int, most: int) -> int:
        return least + int(self.random.random() * (most - least + 1))


def _copy_lines(spec: GeneratorSpec, rows: Iterator[_Row]) -> Iterator[list[str]]:
    """The rows as lines for COPY, up to ``COPY_ROWS`` at a time. Values are generated, so none needs escaping."""
    start = datetime.combine(spec.first_date, time(), UTC).replace(tzinfo=None)

    def instant(microseconds: int) -> str:
        return (start + timedelta(microseconds=microseconds)).isoformat(" ")

    lines: list[str] = []
    for row in rows:
        effective = NULL if row.effective is None else instant(row.effective)
        units, cents = divmod(row.amount_minor, 100)
        lines.append(
            f"{row.transaction_id}\t{row.source}\t{row.destination}\tsynthetic\t{row.reference}\t{units}.{cents:02d}\t"
            f"{row.amount_minor}\t100\t{row.currency}\t{row.status}\t{instant(row.created)}\t{effective}\t"
            f"{row.parent or NULL}\n"
        )
        if len(lines) == COPY_ROWS:
            yield lines
            lines = []
    if lines:
        yield lines
