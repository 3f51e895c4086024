"""A model of closes that count by keys, in plain Python from the raw rows, with no SQL of the project.

It states the rule and little of how it is carried out. A test gives it the rows as they are when a run counts, and it
answers which keys the run counts and for which business date, what stays pending and why, which holds are released, and
every balance's snapshot. Of a run that was stopped and resumed, the test says which pieces were done each time.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from fractions import Fraction
from typing import Literal
from zoneinfo import ZoneInfo

from sqlalchemy import Connection, text

from ledger_db.close.counting import Piece
from ledger_db.close.runs import Run, find_run
from ledger_db.core.calendar import BusinessCalendar
from tests.testing.books import Books
from tests.testing.oracle import NOTHING, Cut, Figures

#: Why a key is pending: effective later, a row that cannot be counted, no row that the run sees.
Reason = Literal["future", "uncountable", "gone"]
#: An effect on one balance, by balance id.
Effects = dict[str, Figures]

NEVER_COUNTS = ("QUEUED", "SCHEDULED", "REJECTED")
COUNTS = ("APPLIED", "INFLIGHT", "VOID")
SETTLES = ("APPLIED", "VOID")
ONE_DAY = timedelta(days=1)


def plus(one: Figures, other: Figures) -> Figures:
    return Figures(*(a + b for a, b in zip(one, other, strict=True)))


def add(effects: Iterable[tuple[str, Figures]]) -> Effects:
    """The sum of effects by balance."""
    sums: Effects = {}
    for balance, figures in effects:
        sums[balance] = plus(sums.get(balance, NOTHING), figures)
    return sums


@dataclass(frozen=True)
class Row:
    """A transaction as it stands; ``amount`` is in minor units, None where it is no whole number."""

    key: int
    transaction_id: str
    source: str | None
    destination: str | None
    amount: int | None
    status: str | None
    effective_at: datetime
    parent: str | None = None
    recorded_xid: int | None = None

    @property
    def names_parent(self) -> bool:
        """Whether its parent is a transaction: the reference writes the ids of batches there too."""
        return self.parent is not None and not self.parent.startswith("bulk_")

    def own_effects(self) -> Effects:
        """What it posts and what it puts on hold; not what it takes off a hold."""
        posted = self.amount or 0 if self.status == "APPLIED" else 0
        held = self.amount or 0 if self.status == "INFLIGHT" else 0
        return self._on_both_sides(posted, held)

    def release_effects(self) -> Effects:
        """What it takes off the hold that is its parent."""
        return self._on_both_sides(0, -(self.amount or 0))

    def _on_both_sides(self, posted: int, held: int) -> Effects:
        sides = []
        if self.destination is not None:
            sides.append((self.destination, Figures(posted, 0, held, 0)))
        if self.source is not None:
            sides.append((self.source, Figures(0, posted, 0, held)))
        return add(sides)


class Table:
    """The transactions at one moment. A row that was deleted is not in it."""

    def __init__(self, rows: Iterable[Row]) -> None:
        self.by_key: dict[int, Row] = {}
        self.by_id: dict[str, Row] = {}
        for row in rows:
            assert row.key not in self.by_key and row.transaction_id not in self.by_id
            self.by_key[row.key] = self.by_id[row.transaction_id] = row

    def __iter__(self) -> Iterator[Row]:
        return iter(self.by_key.values())

    @classmethod
    def read(cls, connection: Connection) -> Table:
        rows = connection.execute(
            text(
                "SELECT id, transaction_id, source, destination, precise_amount, amount, precision, status, "
                "created_at, effective_date, parent_transaction, CAST(recorded_xid AS text) FROM blnk.transactions"
            )
        )
        return cls(
            Row(
                key, id_, source, destination, _whole(precise, amount, precision), status,
                (effective or created_at).replace(tzinfo=UTC), parent or None, None if xid is None else int(xid),
            )
            for key, id_, source, destination, precise, amount, precision, status, created_at, effective, parent, xid
            in rows
        )  # fmt: skip

    def hold_of(self, row: Row) -> Row | None:
        """The hold that a row takes its amount off, if it does."""
        if row.status not in SETTLES or row.parent is None:
            return None
        parent = self.by_id.get(row.parent)
        return parent if parent is not None and parent.status == "INFLIGHT" else None


def _whole(precise: object, amount: object, precision: int | None) -> int | None:
    if precise is None and amount is None:
        return None
    minor = Fraction(str(precise)) if precise is not None else Fraction(str(amount)) * (precision or 1)
    return int(minor) if minor == int(minor) else None


def read_balances(connection: Connection) -> dict[str, str]:
    """The currency of each balance that is there."""
    rows = connection.execute(text("SELECT balance_id, currency FROM blnk.balances"))
    return {str(row.balance_id): str(row.currency) for row in rows}


@dataclass
class Outcome:
    """What one run says. The sets of a run are its own; :class:`Model` follows the chain."""

    run: Run
    base: Outcome | None
    looked_for: set[int] = field(default_factory=set)  # named as gone if a row is deleted before it is counted
    counted: dict[int, date] = field(default_factory=dict)
    settled: set[int] = field(default_factory=set)
    pending: dict[int, Reason] = field(default_factory=dict)
    settling: set[int] = field(default_factory=set)
    released: dict[int, date] = field(default_factory=dict)
    waiting: set[int] = field(default_factory=set)
    activity: dict[date, Effects] = field(default_factory=lambda: defaultdict(dict))
    snapshots: Effects = field(default_factory=dict)

    def is_older(self, key: int) -> bool:
        """Whether a key is not above the highest one of the base."""
        return self.base is not None and key <= self.base.run.max_transaction_key

    def act(self, day: date, effects: Effects) -> None:
        """Add effects to a date."""
        self.activity[day] = add([*self.activity[day].items(), *effects.items()])

    def chain(self) -> list[Outcome]:
        """The closes up to this one, or up to the base of an interim run and then the run itself."""
        chain = [self]
        while chain[-1].base is not None:
            chain.append(chain[-1].base)
        return chain[::-1]

    def counted_so_far(self) -> set[int]:
        """Every key that the run or one before it in its chain counted."""
        return {key for outcome in self.chain() for key in outcome.counted}


@dataclass
class Model:
    """The runs of a ledger, and what each must say."""

    outcomes: dict[int, Outcome] = field(default_factory=dict)
    open_run: Outcome | None = None
    currency_of: dict[str, str] = field(default_factory=dict)
    existing: frozenset[int] | None = None  # the keys with which the ledger came into this cluster; None: no run yet

    # Runs ---------------------------------------------------------------------------------------------------------

    def come_into_another_cluster(self) -> None:
        """The first run here finds which rows there are. A run that is open is given up then and leaves nothing."""
        self.existing = self.open_run = None

    def open(self, run: Run, balances: Mapping[str, str]) -> None:
        """A run took its cut: ``balances`` as they are then. They are never forgotten."""
        base = None if run.base_run_id is None else self.outcomes[run.base_run_id]
        self.open_run = Outcome(run, base)
        self.currency_of = dict(balances) | self.currency_of

    def plan(self, table: Table) -> None:
        """The open run determines the keys that it looks for besides the new ones."""
        outcome = self._opened()
        base = outcome.base
        if base is not None:
            brought = () if base.run.cluster_id == outcome.run.cluster_id else self.existing or ()
            keys = {*brought, *(row.key for row in table if self._sees(outcome.run, row))} - base.counted_so_far()
            outcome.looked_for = base.pending.keys() | {key for key in keys if outcome.is_older(key)}

    def count(self, table: Table, pieces: Collection[Piece] | None = None) -> None:
        """The open run counts rows, and releases holds, as ``table`` stands: those of some pieces; None: all."""
        outcome = self._opened()
        self._count_rows(outcome, table, pieces)
        self._release_holds(outcome, table, pieces)

    def certify(self) -> Outcome:
        """What the open run must say, now that all is counted."""
        outcome, self.open_run = self._opened(), None
        before = {} if outcome.base is None else outcome.base.snapshots
        sums = add([*before.items(), *(item for day in outcome.activity.values() for item in day.items())])
        outcome.snapshots = dict.fromkeys(self.currency_of, NOTHING) | sums
        self.outcomes[outcome.run.run_id] = outcome
        return outcome

    def _opened(self) -> Outcome:
        assert self.open_run is not None
        return self.open_run

    def _sees(self, run: Run, row: Row) -> bool:
        return Cut.parse(run.cut).sees(row.recorded_xid) or row.key in (self.existing or ())

    def _count_rows(self, outcome: Outcome, table: Table, pieces: Collection[Piece] | None) -> None:
        counted_before = set() if outcome.base is None else outcome.base.counted_so_far()

        def is_looked_at(key: int) -> bool:
            return _is_in(pieces, key, *(["older"] if outcome.is_older(key) else ["new", "prepared"]))

        for row in table:
            if is_looked_at(row.key) and row.key not in counted_before and self._sees(outcome.run, row):
                self._count_row(outcome, row, table)
        for key in outcome.looked_for - outcome.counted.keys() - outcome.pending.keys():
            if is_looked_at(key):
                outcome.pending[key] = "gone"

    def _count_row(self, outcome: Outcome, row: Row, table: Table) -> None:
        if row.status in NEVER_COUNTS:
            outcome.counted[row.key] = outcome.run.business_date
            outcome.settled.add(row.key)
        elif not self._is_countable(row, table):
            outcome.pending[row.key] = "uncountable"
        elif row.effective_at >= outcome.run.closes_at:
            outcome.pending[row.key] = "future"
        else:
            outcome.counted[row.key] = self.date_of(outcome, row.effective_at)
            outcome.act(outcome.counted[row.key], row.own_effects())
            if table.hold_of(row) is not None:
                outcome.settling.add(row.key)

    def _is_countable(self, row: Row, table: Table) -> bool:
        if row.amount is None or row.status not in COUNTS:
            return False
        if row.source not in self.currency_of or row.destination not in self.currency_of:
            return False
        return row.status not in SETTLES or not row.names_parent or row.parent in table.by_id

    def _release_holds(self, outcome: Outcome, table: Table, pieces: Collection[Piece] | None) -> None:
        counted = outcome.counted_so_far()
        candidates = outcome.settling | (set() if outcome.base is None else outcome.base.waiting)
        for key in candidates:
            if not _is_in(pieces, key, "holds"):
                continue
            child = table.by_key.get(key)
            hold = None if child is None else table.hold_of(child)
            if child is not None and hold is not None and hold.key in counted:
                day = self.date_of(outcome, max(child.effective_at, hold.effective_at))
                outcome.released[key] = day
                outcome.act(day, child.release_effects())
        outcome.waiting = candidates - outcome.released.keys()

    def date_of(self, outcome: Outcome, at: datetime) -> date:
        """The business date of an instant: the run's, or as it was closed, or before the first close by calendar."""
        run, base = outcome.run, outcome.base
        if base is None:
            return run.business_date
        if at >= base.run.closes_at:
            return max(run.business_date, base.run.business_date + ONE_DAY)
        closes = [each.run for each in base.chain()]
        if at < closes[0].opens_at:
            calendar = BusinessCalendar(zone=ZoneInfo(run.time_zone), cut_off=run.cut_off)
            return min(calendar.business_date_of(at), closes[0].business_date - ONE_DAY)
        (day,) = [close.business_date for close in closes if close.opens_at <= at < close.closes_at]
        return day

    # History ------------------------------------------------------------------------------------------------------

    def balance_at(
        self, table: Table, balance: str, instant: datetime, *, known: int | None = None, from_source: bool = False
    ) -> Figures:
        """One balance just before an instant: known now, or as known at a run, from the rows as they stand now.

        What a known run counted up to the anchor's date is in figures, and no edit since then moves it.
        """
        runs = self._known_runs(known)
        closes = [each for each in runs if each.run.kind == "close" and each.run.closes_at <= instant]
        anchor = closes[-1] if closes and not from_source else None
        parts = [] if anchor is None else _in_figures(anchor, runs, balance)
        for row in table:
            if row.status in NEVER_COUNTS or not self._is_known(row, runs, known, instant):
                continue
            if _is_dated_back(row, anchor, runs):
                continue
            if row.effective_at < instant and not _is_in_figures(row, anchor, runs):
                parts.append(row.own_effects().get(balance, NOTHING))
            hold = table.hold_of(row)
            if hold is None or not self._is_known(hold, runs, known, instant):
                continue
            held_at = max(row.effective_at, hold.effective_at)
            if held_at < instant and not _is_released(row, held_at, anchor, runs):
                parts.append(row.release_effects().get(balance, NOTHING))
        return add((balance, part) for part in parts).get(balance, NOTHING)

    def _known_runs(self, known: int | None) -> list[Outcome]:
        if known is not None:
            return self.outcomes[known].chain()
        closes = [each for each in self.outcomes.values() if each.run.kind == "close"]
        return [] if not closes else max(closes, key=lambda each: each.run.closes_at).chain()

    def _is_known(self, row: Row, runs: list[Outcome], known: int | None, instant: datetime) -> bool:
        if known is None or any(row.key in each.counted for each in runs):
            return True
        last = self.outcomes[known]
        return row.key in last.pending and instant > last.run.closes_at


def _is_in(pieces: Collection[Piece] | None, key: int, *works: str) -> bool:
    """Whether a key belongs to one of these pieces."""
    return pieces is None or any(each.work in works and each.first_key <= key <= each.last_key for each in pieces)


def _in_figures(anchor: Outcome, runs: list[Outcome], balance: str) -> list[Figures]:
    """An anchor's snapshot, and what later runs counted for its date or earlier ones."""
    parts = [anchor.snapshots.get(balance, NOTHING)]
    for each in runs[runs.index(anchor) + 1 :]:
        days = [effects for day, effects in each.activity.items() if day <= anchor.run.business_date]
        parts += [effects.get(balance, NOTHING) for effects in days]
    return parts


def _is_in_figures(row: Row, anchor: Outcome | None, runs: list[Outcome]) -> bool:
    """Whether a row was counted for the anchor's date or an earlier one."""
    return anchor is not None and any(
        each.counted.get(row.key, date.max) <= anchor.run.business_date for each in runs
    )  # fmt: skip


def _is_dated_back(row: Row, anchor: Outcome | None, runs: list[Outcome]) -> bool:
    """Whether a row was counted for a date after the anchor's, and has a date before that since."""
    if anchor is None or row.effective_at >= anchor.run.closes_at or _is_in_figures(row, anchor, runs):
        return False
    return any(row.key in each.counted for each in runs)


def _is_released(row: Row, held_at: datetime, anchor: Outcome | None, runs: list[Outcome]) -> bool:
    """Whether a release is in the anchor's figures, or belongs to a later date, or to no date.

    A row that was counted and released no hold then does not do so since it was edited.
    """
    if anchor is None:
        return False
    days = [each.released[row.key] for each in runs if row.key in each.released]
    if any(day <= anchor.run.business_date or held_at < anchor.run.closes_at for day in days):
        return True
    is_counted = any(row.key in each.counted for each in runs)
    return is_counted and not any(row.key in each.settling for each in runs)


# What the database says -----------------------------------------------------------------------------------------------


def keys_in(books: Books, key_set: str, run: Run) -> dict[int, date]:
    """A run's set of keys with their business dates. No key is in it twice."""
    rows = books.rows(
        "SELECT effective_date, block, lower(range), upper(range) FROM ledger_eod.run_keys, unnest(keys) AS range "
        "WHERE run_id = :run AND CAST(key_set AS text) = :key_set",
        run=run.run_id,
        key_set=key_set,
    )
    found: dict[int, date] = {}
    for effective_date, block, first, end in rows:
        for key in range(first, end):
            assert key >> 13 == block
            assert key not in found, f"{key} is twice in {key_set} of {run.name}"
            found[key] = effective_date
    return found


def done_pieces(books: Books, run: Run) -> set[Piece]:
    """The pieces of a run that are done."""
    rows = books.rows(
        "SELECT piece, work::text, first_key, last_key FROM ledger_eod.run_pieces "
        "WHERE run_id = :run AND done_at IS NOT NULL",
        run=run.run_id,
    )
    return {Piece(*row) for row in rows}


def pending_in(books: Books, run: Run) -> set[int]:
    """The keys that are pending at a run, stored by it or by closes before it. None is stored twice."""
    since = books.rows(
        "SELECT run_id FROM ledger_eod.runs WHERE run_id = :run OR (run_id BETWEEN :whole AND :base "
        "AND kind = 'close' AND status = 'certified' AND genesis_run_id = :genesis) ORDER BY run_id",
        run=run.run_id, whole=run.pending_from, base=run.base_run_id, genesis=run.genesis_run_id,
    )  # fmt: skip
    with books.engine.connect() as connection:
        storing = [find_run(connection, run_id) for (run_id,) in since]
    pending: set[int] = set()
    for each in storing:
        stored = keys_in(books, "pending", each).keys()
        assert stored.isdisjoint(pending), f"{each.name} stores again that {stored & pending} are pending"
        pending = (pending | stored) - keys_in(books, "counted", each).keys()
    return pending
