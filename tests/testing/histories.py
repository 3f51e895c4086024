"""Generated histories: what is recorded when, and which runs are taken in between."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime, timedelta
from zoneinfo import ZoneInfo

from hypothesis import strategies as st
from sqlalchemy import Connection, RootTransaction

from ledger_db.books.holds import commit_inflight, refund, void_inflight
from ledger_db.books.recording import Movement, record
from ledger_db.close.opening import open_interim
from ledger_db.close.runs import Run
from ledger_db.core.calendar import BusinessCalendar
from ledger_db.errors import BookingRefused, OutOfOrder
from tests.testing.books import Books, instant

START = instant("2026-03-25")  # around the change of the clock in Berlin

CURRENCIES = {"a": "USD", "b": "USD", "c": "USD", "p": "EUR", "q": "EUR"}

CALENDARS = (
    BusinessCalendar(),
    BusinessCalendar(ZoneInfo("Europe/Berlin")),
    BusinessCalendar(ZoneInfo("UTC"), datetime(2026, 1, 1, 17).time()),  # noqa: DTZ001
    BusinessCalendar(ZoneInfo("Asia/Kolkata")),
    BusinessCalendar(ZoneInfo("Pacific/Honolulu"), datetime(2026, 1, 1, 11).time()),  # noqa: DTZ001
)


#: minutes of a day at which one of the calendars has its boundary, and a few others: ties and boundaries are frequent
MINUTES = (0, 1, 9 * 60, 17 * 60, 18 * 60 + 30, 21 * 60, 22 * 60, 23 * 60, 24 * 60 - 1)


moments = st.builds(
    lambda days, minutes: START + timedelta(days=days, minutes=minutes), st.integers(-3, 8), st.sampled_from(MINUTES)
)

amounts = st.one_of(st.integers(1, 1000), st.integers(1, 2**70))

pairs = st.sampled_from([("a", "b"), ("b", "a"), ("a", "c"), ("c", "a"), ("b", "b"), ("p", "q"), ("q", "p")])

events = st.one_of(
    st.tuples(st.sampled_from(["post", "post", "hold"]), pairs, amounts, moments, st.none() | moments),
    st.tuples(st.sampled_from(["commit", "commit", "void", "refund"]), st.integers(0, 20), amounts, moments),
    st.tuples(st.sampled_from(["leave open", "finish open"]), amounts, moments),
)

nights = st.tuples(
    st.lists(events, min_size=2, max_size=8),
    st.sampled_from([0, 0, 0, 1]),  # missed dates before it
    st.sampled_from(CALENDARS),
    st.booleans(),  # an interim run first
    st.lists(events, max_size=2),  # recorded between the cut and the batches
)


@dataclass
class History:
    """Books being written, and what each run knew."""

    books: Books
    committed: list[str] = field(default_factory=list)
    holds: list[str] = field(default_factory=list)
    posted: list[str] = field(default_factory=list)
    known: dict[int, tuple[Run, frozenset[str]]] = field(default_factory=dict)
    session: tuple[Connection, RootTransaction, str] | None = None

    def play(self, event: tuple[object, ...]) -> None:
        what, *rest = event
        if what in ("leave open", "finish open"):
            self._session(str(what), *rest)
            return
        with self.books.engine.begin() as connection:
            try:
                made = self._record(connection, str(what), *rest)
            except BookingRefused:  # nothing left of the hold, refunded before
                return
        if made is not None:
            self.committed.append(made)

    def _record(self, connection: Connection, what: str, *rest: object) -> str | None:
        match what, *rest:
            case (("post" | "hold"), (str(source), str(destination)), int(amount), datetime() as created, effective):
                assert effective is None or isinstance(effective, datetime)
                made = record(
                    connection,
                    Movement(
                        f"bln_{source}", f"bln_{destination}", amount, CURRENCIES[source],
                        status="INFLIGHT" if what == "hold" else "APPLIED", created_at=created,
                        effective_date=effective,
                    ),
                )  # fmt: skip
                (self.holds if what == "hold" else self.posted).append(made)
                return made
            case "commit", int(number), int(amount), datetime() as created if self.holds:
                hold = self.holds[number % len(self.holds)]
                try:
                    return commit_inflight(connection, hold, amount_minor=amount, created_at=created)
                except BookingRefused:
                    return commit_inflight(connection, hold, created_at=created)
            case "void", int(number), _, datetime() as created if self.holds:
                return void_inflight(connection, self.holds[number % len(self.holds)], created_at=created)
            case "refund", int(number), _, datetime() as created if self.posted:
                return refund(connection, self.posted[number % len(self.posted)], created_at=created)
        return None

    def _session(self, what: str, amount: object, created: object) -> None:
        """One session that stays open across whatever comes, on balances of its own."""
        if what == "leave open" and self.session is None:
            connection = self.books.engine.connect()
            opened = connection.begin()
            assert isinstance(amount, int) and isinstance(created, datetime)
            made = record(connection, Movement("bln_x", "bln_y", amount, "USD", created_at=created))
            self.session = (connection, opened, made)
        elif what == "finish open" and self.session is not None:
            connection, opened, made = self.session
            opened.commit()
            connection.close()
            self.session = None
            self.committed.append(made)

    def end(self) -> None:
        if self.session is not None:
            self._session("finish open", None, None)

    def run(self, opened: Run, meanwhile: list[tuple[object, ...]]) -> Run:
        knew = frozenset(self.committed)
        for event in meanwhile:
            self.play(event)
        certified = self.books.finish(opened)
        self.known[opened.run_id] = (certified, knew)
        return certified


def play(history: History, written: list[tuple[list[tuple[object, ...]], int, BusinessCalendar, bool, list]]) -> None:  # type: ignore[type-arg]
    day = START.date()
    for before, missed, calendar, with_interim, meanwhile in written:
        for event in before:
            history.play(event)
        if with_interim:
            now = calendar.opens_at(day) + timedelta(hours=13)
            with history.books.engine.begin() as connection:
                opened = open_interim(connection, calendar=calendar, now=now, business_date=None)
            if opened is not None:
                history.run(opened, [])
        day += timedelta(days=missed)
        try:
            run = history.books.open_day(day.isoformat(), calendar=calendar)
        except OutOfOrder:  # the new calendar's date ends before the last close did
            continue
        history.run(run, meanwhile)
        day += timedelta(days=1)
