"""Generated histories: every close counts exactly what the model says, each key once, whatever happens in between."""

from __future__ import annotations

import random
from collections import Counter, defaultdict
from collections.abc import Iterable
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from datetime import UTC, date, datetime, timedelta
from types import SimpleNamespace
from typing import Any, cast

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import URL, Connection, RootTransaction, text

from ledger_db.close import opening
from ledger_db.close.cluster import find_cluster
from ledger_db.close.counting import count_piece, plan_hold_pieces, plan_pieces
from ledger_db.close.driver import SILENT, Report, resume_run
from ledger_db.close.opening import abandon_run, open_close, open_interim
from ledger_db.close.preparing import prepare_close
from ledger_db.close.runs import Run, find_run
from ledger_db.core.calendar import BusinessCalendar
from ledger_db.errors import NothingToPrepare, OutOfOrder
from ledger_db.history.balance_at import balance_at
from ledger_db.settings import get_settings
from tests.testing.books import Books
from tests.testing.clusters import become_a_copy
from tests.testing.databases import database_of
from tests.testing.histories import CALENDARS, MINUTES, START
from tests.testing.ledger_model import (
    ONE_DAY,
    Effects,
    Model,
    Outcome,
    Row,
    Table,
    add,
    done_pieces,
    keys_in,
    pending_in,
    plus,
    read_balances,
)
from tests.testing.oracle import NOTHING, Figures

BALANCES = {"a": "USD", "b": "USD", "c": "USD", "p": "EUR", "q": "EUR"}
LATER_BALANCES = ("d", "e")  # in USD; they are created during a history
EXPLICIT_KEYS = (2_147_483_647, -8_193, 0, 2**40, -1, 8_191, 8_192)
LAST_DAY = 4  # days after START on which rows become effective

moments = st.builds(
    lambda days, minutes: START + timedelta(days=days, minutes=minutes),
    st.integers(-3, LAST_DAY),
    st.sampled_from(MINUTES),
)
amounts = st.one_of(st.integers(1, 1000), st.integers(1, 2**70))
numbers = st.integers(0, 30)
statuses = st.sampled_from(["APPLIED"] * 4 + ["INFLIGHT"] * 3 + ["QUEUED", "SCHEDULED", "REJECTED"])
settling = st.sampled_from(["APPLIED", "VOID"])
keys = st.sampled_from(["next"] * 6 + ["reserved", "reserved", "explicit"])
sides = st.sampled_from(
    [("a", "b"), ("b", "a"), ("a", "c"), ("c", "b"), ("b", "b"), ("p", "q"), ("q", "p"), ("d", "e")]
)

records = st.one_of(
    st.tuples(st.just("post"), sides, statuses, amounts, moments, keys),
    st.tuples(st.just("post"), sides, statuses, amounts, moments, keys),
    st.tuples(st.just("child"), st.just("status = 'INFLIGHT'"), numbers, settling, amounts, moments, keys),
    st.tuples(st.just("child"), st.just("status = 'INFLIGHT'"), numbers, settling, amounts, moments, keys),
    st.tuples(st.just("child"), st.just("source IS NOT NULL"), numbers, st.just("APPLIED"), amounts, moments, keys),
    st.tuples(st.just("settle unknown"), sides, settling, amounts, moments, keys),
    st.tuples(st.just("record unknown"), moments, keys),
    st.tuples(st.just("bulk"), sides, amounts, moments, keys),
    st.tuples(st.just("misfit"), sides, st.sampled_from(["no amount", "fraction", "no source", "status"]), moments),
)
others = st.one_of(
    st.tuples(st.just("redate"), numbers, moments),
    st.tuples(st.just("redate"), numbers, moments),
    st.tuples(st.just("delete"), numbers),
    st.tuples(st.just("mend"), numbers),
    st.tuples(st.just("move"), numbers, numbers),
    st.tuples(st.just("leave open"), records),
    st.tuples(st.just("leave open"), records),
    st.tuples(st.just("finish open"), st.sampled_from(["commit", "commit", "roll back"])),
    st.tuples(st.just("reserve"), st.integers(1, 3)),
    st.tuples(st.just("prepare"), st.sampled_from([None, None, 0])),
)
#: Into another cluster: how much higher the ids of the rows are there than they were, None for as low as can be.
moves = st.tuples(st.just("restore"), st.sampled_from([None, 0, 5, 50, 10**9]))
before_a_cut = st.one_of(records, records, others, moves, st.tuples(st.just("put back"), numbers))
after_a_cut = st.one_of(records, others)
after_a_stop = st.one_of(records, others, moves)

Event = tuple[Any, ...]


@dataclass(frozen=True)
class Night:
    """What happens before a date is closed, and how the close goes."""

    events: list[Event]
    rounds: list[list[Event]]  # before each it is counted in advance
    missed: int  # dates before it
    calendar: BusinessCalendar
    is_interim_first: bool
    abandoned: int | None  # a first close of the date is given up after so many steps
    meanwhile: list[Event]  # between the cut and the counting
    stops: list[tuple[int, list[Event]]]  # after so many steps it is stopped, and resumed after these events


nights = st.builds(
    Night,
    events=st.lists(before_a_cut, min_size=8, max_size=20),
    rounds=st.lists(st.lists(records | others, min_size=1, max_size=4), max_size=3),
    missed=st.sampled_from([0, 0, 0, 1]),
    calendar=st.sampled_from(CALENDARS),
    is_interim_first=st.booleans(),
    abandoned=st.sampled_from([None, None, 0, 1, 2]),
    meanwhile=st.lists(after_a_cut, min_size=1, max_size=5),
    stops=st.lists(st.tuples(st.integers(0, 8), st.lists(after_a_stop, min_size=1, max_size=4)), max_size=3),
)


class Interrupted(Exception):
    """What stops a run between two steps."""


@dataclass
class History:
    """Books being written, and the model of what each run must say."""

    books: Books
    chance: random.Random = field(default_factory=lambda: random.Random(0))  # noqa: S311
    model: Model = field(default_factory=Model)
    runs: list[Run] = field(default_factory=list)
    present: list[int] = field(default_factory=list)
    removed: list[dict[str, Any]] = field(default_factory=list)
    reserved: list[int] = field(default_factory=list)
    explicit: list[int] = field(default_factory=lambda: list(EXPLICIT_KEYS))
    unknown: list[str] = field(default_factory=list)
    session: tuple[Connection, RootTransaction, int | None] | None = None
    number: int = 0
    newest_run_id: int = 0
    in_progress: tuple[date, BusinessCalendar] | None = None

    # Events -------------------------------------------------------------------------------------------------------

    def play(self, events: Iterable[Event]) -> None:
        for what, *rest in events:
            if what == "leave open":
                self._leave_open(*rest)
            elif what == "finish open":
                self.finish_open(*rest)
            elif what == "prepare":
                self.prepare(*rest)
            elif what == "restore":
                self._restore(*rest)
            else:
                with self.books.engine.begin() as connection:
                    # the own copy of the ledger refuses edits and deletions; the reference does not
                    connection.execute(text("SET LOCAL session_replication_role = replica"))
                    made = self._do(connection, what, *rest)
                self.present += [] if made is None else [made]

    def _do(self, connection: Connection, what: str, *rest: Any) -> int | None:
        if what in ("post", "child", "settle unknown", "record unknown", "bulk", "misfit"):
            return self._record(connection, what, *rest)
        if what == "reserve":
            self.reserved += [self._next_key(connection) for _ in range(rest[0])]
        elif what == "put back":
            return self._put_back(connection, *rest)
        elif self.present:
            number, *by = rest
            self._change(connection, what, self.present[number % len(self.present)], *by)
        return None

    def _record(self, connection: Connection, what: str, *rest: Any, is_session: bool = False) -> int | None:
        """Insert the row that an event asks for, if it can be made."""
        self.number += 1
        row = self._row(connection, what, *rest)
        if row is None:
            return None
        for side in ("source", "destination"):
            if row[side] in LATER_BALANCES and not is_session:
                self.books.open(row[side], connection=connection)
            row[side] = row[side] and f"bln_{row[side].removeprefix('bln_')}"
        row["id"] = self._key(connection, row["id"])
        row["created_at"] = row["created_at"].replace(tzinfo=None)
        if not self.newest_run_id and not is_session and self.number % 3 == 0:
            row["recorded_xid"] = None  # recorded before installation
        return self._insert(connection, {"transaction_id": f"txn_{self.number}"} | row)

    def _row(self, connection: Connection, what: str, *rest: Any) -> dict[str, Any] | None:
        row: tuple[Any, ...] | None = None
        match what, *rest:
            case "post", (source, destination), status, amount, moment, key:
                row = (source, destination, status, amount, moment, key)
            case "child", of, number, status, amount, moment, key:
                if parent := self._find(connection, number, of):
                    row = (*parent[1:], status, amount, moment, key, parent[0])
            case "settle unknown", (source, destination), status, amount, moment, key:
                self.unknown.append(f"txn_hold_{self.number}")
                row = (source, destination, status, amount, moment, key, self.unknown[-1])
            case "bulk", (source, destination), amount, moment, key:
                row = (source, destination, "APPLIED", amount, moment, key, "bulk_1")
            case "record unknown", moment, key if self.unknown:
                row = ("a", "b", "INFLIGHT", 100, moment, key, None, self.unknown.pop(0))
            case "misfit", (source, destination), why, moment:
                source = None if why == "no source" else source
                status = "UNHEARD" if why == "status" else "APPLIED"
                amount = {"no amount": None, "fraction": "10.5"}.get(why, 10)
                row = (source, destination, status, amount, moment, "next")
        names = (
            "source", "destination", "status", "precise_amount", "created_at", "id", "parent_transaction",
            "transaction_id",
        )  # fmt: skip
        return None if row is None else dict(zip(names, row, strict=False))

    def _find(self, connection: Connection, number: int, where: str) -> Any:
        rows = connection.execute(
            text(f"SELECT transaction_id, source, destination FROM blnk.transactions WHERE {where} ORDER BY id")
        ).all()
        return rows[number % len(rows)] if rows else None

    def _insert(self, connection: Connection, row: dict[str, Any]) -> int:
        columns, values = ", ".join(row), ", ".join(f":{name}" for name in row)
        connection.execute(text(f"INSERT INTO blnk.transactions ({columns}) VALUES ({values})"), row)
        return int(row["id"])

    def _key(self, connection: Connection, key: str) -> int:
        if key == "reserved" and self.reserved:
            return self.reserved.pop(0)
        if key == "explicit" and self.explicit:
            return self.explicit.pop(0)
        while (given := self._next_key(connection)) in EXPLICIT_KEYS:
            pass
        return given

    def _next_key(self, connection: Connection) -> int:
        sequence = text("SELECT nextval(pg_get_serial_sequence('blnk.transactions', 'id'))")
        return int(connection.scalar(sequence) or 0)

    def _change(self, connection: Connection, what: str, key: int, *by: Any) -> None:
        parameters: dict[str, Any] = {"key": key}
        match what, *by:
            case "redate", moment:
                parameters["moment"] = moment.replace(tzinfo=None)
                change = "UPDATE blnk.transactions SET effective_date = :moment WHERE id = :key"
            case "mend", *_:
                change = (
                    "UPDATE blnk.transactions SET precise_amount = COALESCE(trunc(precise_amount), 7), "
                    "source = COALESCE(source, destination), status = replace(status, 'UNHEARD', 'APPLIED'), "
                    "parent_transaction = (SELECT transaction_id FROM blnk.transactions AS parent "
                    "WHERE parent.transaction_id = transactions.parent_transaction) WHERE id = :key"
                )
            case "move", number:
                parent = self._find(connection, number, "status = 'INFLIGHT'")
                parameters["parent"] = None if parent is None else parent[0]
                change = (
                    "UPDATE blnk.transactions SET parent_transaction = :parent "
                    "WHERE id = :key AND parent_transaction LIKE 'txn_%' AND status IN ('APPLIED', 'VOID')"
                )
            case "delete", *_:
                if self._would_look_remade(connection, key):
                    return
                row = connection.execute(text("SELECT * FROM blnk.transactions WHERE id = :key"), parameters)
                self.removed += [{**each} for each in row.mappings()]
                self.present.remove(key)
                change = "DELETE FROM blnk.transactions WHERE id = :key"
        connection.execute(text(change), parameters)

    def _would_look_remade(self, connection: Connection, key: int) -> bool:
        """Of the few rows that such a ledger has counted, two that are gone may be most of those that are compared."""
        sampled = set(connection.scalars(text("SELECT transaction_key FROM ledger_eod.sampled_rows")))
        return key in sampled and any(row["id"] in sampled for row in self.removed)

    def _put_back(self, connection: Connection, number: int) -> int | None:
        """A row that was deleted is inserted again under its key, with a recorded id of now."""
        if not self.removed:
            return None
        row = self.removed.pop(number % len(self.removed))
        del row["recorded_xid"]
        return self._insert(connection, row)

    def _leave_open(self, event: Event) -> None:
        if self.session is not None:
            return
        connection = self.books.engine.connect()
        transaction = connection.begin()
        connection.execute(text("SET LOCAL session_replication_role = replica"))
        what, *rest = event
        if isinstance(rest[0], tuple) and set(rest[0]) & set(LATER_BALANCES):
            rest[0] = ("a", "b")  # a balance that is not committed would block whoever creates it too
        self.session = (connection, transaction, self._record(connection, what, *rest, is_session=True))

    def finish_open(self, how: str) -> None:
        if self.session is None:
            return
        connection, transaction, made = self.session
        self.session = None
        if how == "commit":
            transaction.commit()
            self.present += [] if made is None else [made]
        else:
            transaction.rollback()
        connection.close()

    def _restore(self, higher_by: int | None) -> None:
        """The ledger comes into another cluster, with what is committed."""
        self.finish_open("roll back")
        with self.books.engine.begin() as connection:
            become_a_copy(connection, higher_by)
        self.model.come_into_another_cluster()

    # Runs ---------------------------------------------------------------------------------------------------------

    def table(self) -> Table:
        with self.books.engine.connect() as connection:
            return Table.read(connection)

    def arrive(self) -> None:
        """Note with which rows the ledger came into this cluster, if something has just seen it here first."""
        with self.books.engine.connect() as connection:
            if self.model.existing is None and find_cluster(connection) is not None:
                self.model.existing = frozenset(row.key for row in Table.read(connection))

    def opened(self, run: Run) -> Run:
        """A run that has just been opened, or that goes on: none does in another cluster."""
        self.arrive()
        is_new = self.model.open_run is None or self.model.open_run.run.run_id != run.run_id
        if is_new:
            assert run.run_id > self.newest_run_id, f"{run.name} goes on in another cluster"
            self.newest_run_id = run.run_id
            with self.books.engine.connect() as connection:
                self.model.open(run, read_balances(connection))
        return run

    def work_on(self, run: Run, report: Report = SILENT) -> Run:
        """Do what is left of a run, or what is done of that before ``report`` stops it."""
        table, done = self.table(), done_pieces(self.books, run)
        if run.planned_at is None:
            self.model.plan(table)
        with suppress(Interrupted):
            resume_run(self.books.engine, run.run_id, batch_size=3, report=report)
        self.model.count(table, done_pieces(self.books, run) - done)
        with self.books.engine.connect() as connection:
            run = find_run(connection, run.run_id)
        if run.certified:
            self.runs.append(run)
            check_run(self.books, self.model.certify(), self.model)
        return run

    def close(
        self,
        day: date,
        calendar: BusinessCalendar,
        meanwhile: Iterable[Event] = (),
        *,
        abandon_after: int | None = None,
        stops: Iterable[tuple[int, list[Event]]] = (),
    ) -> None:
        """Close a date; with ``abandon_after`` a first run of it is stopped after so many steps and given up.

        ``stops``: after how many steps the run is stopped, and what happens then. Whoever goes on opens it again.
        """
        if abandon_after is not None:
            run = self._open_close(day, calendar)
            if not interrupt(self.books, run, abandon_after):
                raise AssertionError(f"{run.name} has fewer than {abandon_after} steps")
            with self.books.engine.begin() as connection:
                abandon_run(connection, run.run_id)
            assert self.books.rows("SELECT * FROM ledger_eod.run_keys WHERE run_id = :run", run=run.run_id) == []
        run = self._open_close(day, calendar)
        self.play(meanwhile)
        for steps, events in stops:
            if not run.certified:
                run = self.work_on(self._open_close(day, calendar), stopping_after(steps))
            if self.runs:
                check_history(self, 2)
            self.play(events)
        if not run.certified:
            self.work_on(self._open_close(day, calendar))

    def _open_close(self, day: date, calendar: BusinessCalendar) -> Run:
        now = calendar.closes_at(day) + timedelta(hours=1)
        with self.books.engine.begin() as connection:
            run = open_close(connection, business_date=day, calendar=calendar, now=now)
        return self.opened(run)

    def prepare(self, stop_after: int | None = None) -> None:
        """Count in advance what there is of the date in progress; with ``stop_after`` it stops after so many pieces."""
        if self.in_progress is None:
            return
        day, calendar = self.in_progress
        self.books.fill_part()
        taken = {key for (key,) in self.books.rows("SELECT id FROM blnk.transactions")}
        self.explicit = [key for key in self.explicit if key not in taken]
        report = SILENT if stop_after is None else stopping_after(stop_after)
        with suppress(NothingToPrepare, Interrupted):
            prepare_close(
                self.books.engine, calendar=calendar, now=calendar.opens_at(day) + timedelta(hours=14), report=report,
                writers_seconds=0,
            )  # fmt: skip
        self.arrive()

    def interim(self, day: date, calendar: BusinessCalendar) -> None:
        now = calendar.opens_at(day) + timedelta(hours=13)
        with self.books.engine.begin() as connection:
            run = open_interim(connection, calendar=calendar, now=now, business_date=None)
        self.arrive()
        if run is not None:
            self.work_on(self.opened(run))


def stopping_after(steps: int) -> Report:
    """Stops what reports to it, once it has reported so many steps."""
    left = steps

    def stop(step: str, key: int | None) -> None:
        nonlocal left
        if step == "certified":
            return
        if left == 0:
            raise Interrupted
        left -= 1

    return stop


def interrupt(books: Books, run: Run, steps: int) -> bool:
    """Work on a run until it has reported so many steps; whether it was stopped before its end."""
    try:
        resume_run(books.engine, run.run_id, batch_size=3, report=stopping_after(steps))
    except Interrupted:
        return True
    return False


# What the database says -----------------------------------------------------------------------------------------------


def snapshots_in(books: Books, run: Run) -> Effects:
    rows = books.rows(
        "SELECT balance_id, credit_balance, debit_balance, inflight_credit_balance, inflight_debit_balance "
        "FROM ledger_eod.daily_balances WHERE run_id = :run",
        run=run.run_id,
    )
    found = {balance_id: Figures(*map(int, each)) for balance_id, *each in rows}
    assert len(found) == len(rows)
    return found


def named_in(books: Books, run: Run) -> dict[int, str]:
    """The keys that a run itemises, and whether their rows are gone or cannot be counted."""
    rows = books.rows(
        "SELECT transaction_key, CASE WHEN cause = 'gone' THEN cause ELSE 'uncountable' END "
        "FROM ledger_eod.run_exceptions WHERE run_id = :run AND (difference, inflight_difference) = (0, 0)",
        run=run.run_id,
    )
    assert len(dict(rows)) == len(rows)
    return dict(rows)


def activity_in(books: Books, run: Run) -> dict[date, Effects]:
    rows = books.rows(
        "SELECT effective_date, balance_id, sum(credit_balance), sum(debit_balance), sum(inflight_credit_balance), "
        "sum(inflight_debit_balance) FROM ledger_eod.activity "
        "JOIN ledger_eod.captured_balances USING (balance_key) WHERE run_id = :run GROUP BY 1, 2",
        run=run.run_id,
    )
    found: dict[date, Effects] = defaultdict(dict)
    for day, balance_id, *each in rows:
        found[day][balance_id] = Figures(*map(int, each))
    return found


def check_run(books: Books, expected: Outcome, model: Model) -> None:
    """Sets, activity and snapshots are the model's, and every date is zero by itself per currency."""
    run = expected.run
    assert keys_in(books, "counted", run) == expected.counted
    assert pending_in(books, run) == set(expected.pending)
    assert set(keys_in(books, "settling", run)) == expected.settling
    assert keys_in(books, "released", run) == expected.released
    assert set(keys_in(books, "waiting", run)) == expected.waiting
    assert named_in(books, run) == {key: reason for key, reason in expected.pending.items() if reason != "future"}
    activity = activity_in(books, run)
    assert without_zeros(activity) == without_zeros(expected.activity)
    for effects in activity.values():
        assert differences(effects, model) == {}
    snapshots = snapshots_in(books, run)
    if run.kind == "close":
        assert snapshots == expected.snapshots
        assert differences(snapshots, model) == {}
    else:  # an interim run takes the balances that have no row of its date
        assert snapshots == {balance: expected.snapshots[balance] for balance in snapshots}


def without_zeros(activity: dict[date, Effects]) -> dict[date, Effects]:
    moved = {
        day: {name: each for name, each in effects.items() if each != NOTHING} for day, effects in activity.items()
    }
    return {day: effects for day, effects in moved.items() if effects}


def differences(effects: Effects, model: Model) -> dict[str, Figures]:
    """Per currency, where credits are not debits."""
    sums: dict[str, Figures] = defaultdict(lambda: NOTHING)
    for balance, figures in effects.items():
        sums[model.currency_of[balance]] = plus(sums[model.currency_of[balance]], figures)
    return {
        currency: each
        for currency, each in sums.items()
        if each.credit != each.debit or each.inflight_credit != each.inflight_debit
    }


def check_history(history: History, count: int) -> None:
    """Random balances at random instants, as known now and at random runs, are the model's."""
    table, chance = history.table(), history.chance
    boundaries = [run.closes_at for run in history.runs] + [row.effective_at for row in table]
    with history.books.engine.connect() as connection:
        for _ in range(count):
            balance = chance.choice(sorted(history.model.currency_of))
            at = chance.choice(boundaries) + timedelta(microseconds=chance.choice([0, 0, 1, 10**6]))
            known = chance.choice([None, None, *(run.run_id for run in history.runs)])
            from_source = chance.random() < 0.3
            answer = balance_at(connection, balance, at, known_at=known, from_source=from_source)
            expected = history.model.balance_at(table, balance, at, known=known, from_source=from_source)
            found = Figures(
                answer.credit_balance, answer.debit_balance,
                answer.inflight_credit_balance, answer.inflight_debit_balance,
            )  # fmt: skip
            assert found == expected, (balance, at.isoformat(), known, from_source)


def check_chain(history: History) -> None:
    """Every key was counted once, and what was not counted is pending in the last close."""
    closes = [run for run in history.runs if run.kind == "close"]
    counted = Counter(key for run in closes for key in keys_in(history.books, "counted", run))
    assert {key: times for key, times in counted.items() if times > 1} == {}
    pending = pending_in(history.books, closes[-1])
    assert pending.isdisjoint(counted)
    seen = {row.key for row in history.table()}
    assert seen - counted.keys() - pending == set()
    reasons = set(history.model.outcomes[closes[-1].run_id].pending.values())
    assert "future" not in reasons


def test_the_model_counts_once_releases_once_and_knows_what_was_pending() -> None:
    """The test of the test, without a database."""

    def moment(written: str) -> datetime:
        return datetime.fromisoformat(written).replace(tzinfo=UTC)

    def run(number: int, day: str, cut: str) -> Run:
        opens_at = moment(day)
        facts = {
            "run_id": number, "business_date": opens_at.date(), "kind": "close", "cut": cut, "time_zone": "UTC",
            "cut_off": opens_at.time(), "opens_at": opens_at, "closes_at": opens_at + ONE_DAY,
            "base_run_id": number - 1 or None, "name": day, "max_transaction_key": 9, "cluster_id": 1,
        }  # fmt: skip
        return cast("Run", SimpleNamespace(**facts))

    hold = Row(5, "hold", "w", "a", 100, "INFLIGHT", moment("2026-01-31 12:00"), recorded_xid=7)
    child = Row(9, "child", "w", "a", 60, "APPLIED", moment("2026-01-30 12:00"), "hold", recorded_xid=7)
    early = Row(-3, "early", "w", "a", 5, "APPLIED", moment("2026-01-30 13:00"), recorded_xid=None)
    late = Row(2, "late", "a", "w", 1, "APPLIED", moment("2026-01-30 14:00"), recorded_xid=8)
    bad = Row(6, "bad", None, "a", 8, "APPLIED", moment("2026-01-30 15:00"), recorded_xid=7)
    model, names = Model(), {"a": "USD", "w": "USD"}

    friday = run(1, "2026-01-30", "8:9:8")
    table = Table([hold, child, early, late, bad])
    model.open(friday, names)
    model.plan(table)
    model.count(table)
    first = model.certify()
    assert first.counted == dict.fromkeys((9, -3), date(2026, 1, 30))
    assert first.pending == {5: "future", 6: "uncountable"}
    assert (first.settling, first.released, first.waiting) == ({9}, {}, {9})
    assert first.snapshots == {"a": Figures(65, 0, 0, 0), "w": Figures(0, 65, 0, 0)}

    saturday = run(2, "2026-01-31", "9:9:")
    table = Table([hold, replace(child, effective_at=moment("2026-02-05")), late])
    model.open(saturday, names)
    model.plan(table)
    model.count(table)
    second = model.certify()
    assert second.counted == {5: date(2026, 1, 31), 2: date(2026, 1, 30)}
    assert second.pending == {6: "gone"}
    assert (second.released, second.waiting) == ({9: date(2026, 1, 31)}, set())
    assert second.snapshots == {"a": Figures(65, 1, 40, 0), "w": Figures(1, 65, 0, 40)}

    def known(at: str, run_id: int | None) -> Figures:
        return model.balance_at(table, "a", moment(at), known=run_id)

    assert known("2026-01-31", None) == Figures(65, 1, 0, 0)
    assert known("2026-01-31", 1) == Figures(65, 0, 0, 0)
    assert known("2026-01-31 13:00", 1) == Figures(65, 0, 100, 0)
    assert known("2026-02-01", None) == Figures(65, 1, 40, 0)


@pytest.fixture
def small_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LEDGER_PIECE_SIZE", "3")
    get_settings.cache_clear()


def test_edits_between_any_two_pieces_count_nothing_twice(small_pieces: None, books: Books) -> None:
    """A close is stopped after one step, the next one after two, and so on; meanwhile dates move over its boundary."""
    for name in ("@world", "wallet", "shop"):
        books.open(name)
    rows = """
        recorded      source  destination  amount      status    reference  parent
        {day} 09:00   @world  wallet       100.00 USD  APPLIED   {day}-1    -
        {day} 10:00   wallet  shop           1.00 USD  INFLIGHT  {day}-2    -
        {day} 11:00   wallet  shop           2.00 USD  APPLIED   {day}-3    -
        {next} 12:00  wallet  shop           4.00 USD  APPLIED   {day}-4    -
        {next} 13:00  wallet  shop           8.00 USD  APPLIED   {day}-5    -
        {day} 14:00   wallet  shop           1.00 USD  VOID      {day}-6    {day}-2
        {next} 15:00  wallet  shop          16.00 USD  APPLIED   {day}-7    -
    """
    model, counted, before = Model(), Counter[int](), Effects()
    for steps in range(1, 9):
        day = date(2026, 1, steps)
        books.post(rows.format(day=day, next=day + ONE_DAY))
        run = books.open_day(day.isoformat())
        interrupt(books, run, steps)
        with books.engine.begin() as connection:
            model.currency_of = read_balances(connection)
            connection.execute(text("SET LOCAL session_replication_role = replica"))
            moved = "CASE WHEN COALESCE(effective_date, created_at) < :end THEN :end ELSE :end - interval '1 hour' END"
            connection.execute(
                text(f"UPDATE blnk.transactions SET effective_date = {moved} WHERE reference LIKE :day || '-%'"),
                {"day": day.isoformat(), "end": run.closes_at.replace(tzinfo=None)},
            )
        run = books.finish(run)
        counted.update(keys_in(books, "counted", run).keys())
        activity, snapshots = activity_in(books, run), snapshots_in(books, run)
        for effects in (*activity.values(), snapshots):
            assert differences(effects, model) == {}
        sums = add([*before.items(), *(item for effects in activity.values() for item in effects.items())])
        assert dict.fromkeys(snapshots, NOTHING) | sums == snapshots
        before = snapshots
    last = books.close_day("2026-01-09")
    counted.update(keys_in(books, "counted", last).keys())

    assert set(counted) == {key for (key,) in books.rows("SELECT id FROM blnk.transactions")}
    assert set(counted.values()) == {1}
    assert (pending_in(books, last), keys_in(books, "waiting", last)) == (set(), {})
    found = snapshots_in(books, last)
    assert found["bln_shop"] == Figures(8 * 3000, 0, 0, 0)
    assert found["bln_wallet"] == Figures(8 * 10000, 8 * 3000, 0, 0)


def test_a_close_that_is_stopped_when_its_holds_are_planned_goes_on(books: Books) -> None:
    books.post("""
        recorded          source  destination  amount    status    reference  parent
        2026-01-30 09:00  @world  wallet       5.00 USD  INFLIGHT  hold       -
        2026-01-30 10:00  @world  wallet       5.00 USD  APPLIED   paid       hold
    """)
    run = books.open_day("2026-01-30")
    with books.engine.begin() as connection:
        for piece in plan_pieces(connection, run.run_id, piece_size=10):
            count_piece(connection, run.run_id, piece.piece)
        assert len(plan_hold_pieces(connection, run.run_id, piece_size=10)) == 1
    assert books.finish(run).certified
    assert (books.balance("wallet", at="2026-01-31"), books.inflight("wallet", at="2026-01-31")) == ("5.00", "0.00")


@pytest.mark.usefixtures("small_pieces")
@given(written=st.lists(nights, min_size=3, max_size=4), seed=st.integers(0, 2**32))
@settings(max_examples=8, deadline=None, database=None, suppress_health_check=list(HealthCheck), derandomize=True)
def test_every_close_counts_what_the_model_says(
    monkeypatch: pytest.MonkeyPatch,
    server_url: URL,
    template_name: str,
    written: list[Night],
    seed: int,
) -> None:
    # How often a close stores all that is pending: never but for the first, now and then, always.
    monkeypatch.setattr(opening, "FEW_PENDING_ROWS", (-1, 0, 100)[seed % 3])
    monkeypatch.setattr(opening, "MOST_ROWS_READ", (1000, 2, 4)[seed % 3])
    with contextmanager(database_of)(server_url, template_name) as ledger:
        history = History(Books(ledger), random.Random(seed))  # noqa: S311
        for name, currency in BALANCES.items():
            history.books.open(name, currency)
        try:
            play_nights(history, written)
        finally:
            history.finish_open("roll back")


def play_nights(history: History, written: list[Night]) -> None:
    day = START.date()
    for night in written:
        history.in_progress = (day, night.calendar)
        history.play(night.events)
        for number, later in enumerate(night.rounds):
            history.prepare()
            history.play(later)
            if night.is_interim_first and number == 0:
                history.interim(day, night.calendar)
        if night.is_interim_first:
            history.interim(day, night.calendar)
        if history.runs:
            check_history(history, 12 if history.model.existing is None else 2)
        try:
            for _ in range(night.missed):
                history.close(day, night.calendar)
                day += ONE_DAY
            history.close(day, night.calendar, night.meanwhile, abandon_after=night.abandoned, stops=night.stops)
            day += ONE_DAY
        except OutOfOrder:  # the new calendar's date ends before the last close did
            continue
        check_history(history, 10)
    history.finish_open("commit")
    history.close(day, BusinessCalendar())
    while day <= START.date() + timedelta(days=LAST_DAY):  # until nothing is in the future any more
        day += ONE_DAY
        history.close(day, BusinessCalendar())
    check_chain(history)
    check_history(history, 30)
