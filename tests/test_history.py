"""Generated histories: whatever is recorded when, every answer about any instant equals a sum done by hand.

What each run knew is noted by the test itself when the run is opened: the ids that were committed by then.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from sqlalchemy import Connection, RootTransaction, text

from ledger_db.books import Movement, commit_inflight, record, refund, void_inflight
from ledger_db.business_calendar import BusinessCalendar
from ledger_db.errors import BookingRefused, OutOfOrder, UnknowableAt, UnknownBalance, UnknownRun
from ledger_db.history import balance_at
from ledger_db.runs import Run, open_interim
from tests.proof import NOTHING, Figures, Row, add_up, assert_proved, clone, read_rows, snapshots_of, without_zeros
from tests.support import Books, Ledger, instant

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


def expected_at(rows: list[Row], history: History, known_at: int | None, moment: datetime) -> dict[str, Figures]:
    if known_at is None:
        return add_up(rows, before=moment, cut=None)
    _, knew = history.known[known_at]
    return add_up([row for row in rows if row.transaction_id in knew], before=moment, cut=None)


def check(history: History, chance: random.Random) -> None:
    balances = [*(f"bln_{name}" for name in CURRENCIES), "bln_x", "bln_y"]
    boundaries = [run.closes_at for run, _ in history.known.values()]
    edges = [edge + timedelta(microseconds=step) for edge in boundaries for step in (-1, 0, 1)]
    grid = [START + timedelta(days=chance.randrange(-4, 10), minutes=chance.choice(MINUTES)) for _ in range(8)]
    with history.books.engine.connect() as connection:
        rows = read_rows(connection)
        assert {row.transaction_id for row in rows} == set(history.committed)
        for run, knew in history.known.values():
            snapshots = snapshots_of(connection, run)
            proved = expected_at(rows, history, run.run_id, run.closes_at)
            # an interim run holds the balances that had no interim row of that day yet
            assert without_zeros(snapshots) == without_zeros({key: proved.get(key, NOTHING) for key in snapshots})
            if run.kind == "close":
                assert set(snapshots) == set(balances)
                assert sum(f.credit - f.debit for f in snapshots.values()) == 0
                assert sum(f.inflight_credit - f.inflight_debit for f in snapshots.values()) == 0
            del knew
        # snapshot + later = balance, for every run at once: the stored rows are what all postings add up to
        everything = add_up(rows, before=instant("2099-01-01"), cut=None)
        stored = connection.execute(
            text(
                "SELECT balance_id, credit_balance, debit_balance, inflight_credit_balance, inflight_debit_balance "
                "FROM blnk.balances"
            )
        )
        assert {id_: Figures(*map(int, amounts)) for id_, *amounts in stored} == {
            balance: everything.get(balance, NOTHING) for balance in balances
        }
        for known_at in (None, *history.known):
            for moment in chance.sample(edges, min(6, len(edges))) + chance.sample(grid, 3):
                expected = expected_at(rows, history, known_at, moment)
                for balance in chance.sample(balances, 3):
                    for from_source in (False, True):
                        answer = balance_at(connection, balance, moment, known_at=known_at, from_source=from_source)
                        assert Figures(
                            answer.credit_balance, answer.debit_balance,
                            answer.inflight_credit_balance, answer.inflight_debit_balance,
                        ) == expected.get(balance, NOTHING), (balance, moment, known_at, from_source)  # fmt: skip


@settings(
    max_examples=20, deadline=None, database=None,
    phases=[Phase.explicit, Phase.generate],  # shrinking a history takes minutes
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow, HealthCheck.data_too_large],
)  # fmt: skip
@given(written=st.lists(nights, min_size=2, max_size=5), after=st.lists(events, max_size=5), seed=st.integers(0, 2**32))
def test_history_equals_a_sum_by_hand(
    ledger: Ledger,
    written: list[tuple[list[tuple[object, ...]], int, BusinessCalendar, bool, list[tuple[object, ...]]]],
    after: list[tuple[object, ...]],
    seed: int,
) -> None:
    with clone(ledger) as fresh:
        history = History(Books(fresh))
        for name, currency in CURRENCIES.items():
            history.books.open(name, currency)
        history.books.open("x"), history.books.open("y")
        try:
            play(history, written)
            for event in after:
                history.play(event)
        finally:
            history.end()
        check(history, random.Random(seed))  # noqa: S311


def test_a_long_chain_with_everything_in_it(books: Books) -> None:
    """One fixed history that is known to have each thing in it: late, future, tied, missed, changed, on hold, open."""
    history = History(books)
    for name, currency in CURRENCIES.items():
        books.open(name, currency)
    books.open("x"), books.open("y")
    day = timedelta(days=1)
    nine, boundary = START + timedelta(hours=9), START + day
    play(history, [
        ([("post", ("a", "b"), 2**70, nine, None), ("hold", ("a", "c"), 900, nine, None),
          ("post", ("p", "q"), 50, nine, boundary), ("leave open", 77, nine)], 0, CALENDARS[0], True,
         [("post", ("a", "b"), 5, nine, None)]),
        ([("commit", 0, 400, nine + day), ("post", ("b", "b"), 3, boundary, None), ("refund", 0, 1, nine + day),
          ("post", ("c", "a"), 11, nine + day, nine - 2 * day)], 1, CALENDARS[2], True, []),
        ([("finish open", 1, nine), ("post", ("a", "b"), 13, nine, boundary - timedelta(minutes=1)),
          ("void", 0, 1, nine + 2 * day), ("post", ("q", "p"), 8, nine, nine + 5 * day)], 0, CALENDARS[1], False,
         [("post", ("a", "c"), 17, nine, nine)]),
        ([("post", ("a", "b"), 19, nine, nine + day)], 0, CALENDARS[4], True, []),
        ([], 0, CALENDARS[3], False, []),
        ([("post", ("b", "a"), 23, nine, nine + 2 * day)], 0, CALENDARS[0], True, []),
    ])  # fmt: skip
    history.play(("post", ("b", "a"), 29, nine, nine + day))
    check(history, random.Random(1))  # noqa: S311
    closes = [run for run, _ in history.known.values() if run.kind == "close"]
    assert len(closes) >= 5
    assert books.rows("SELECT count(DISTINCT run_id) > 2 FROM ledger_eod.activity WHERE is_late") == [(True,)]


def test_questions_that_have_no_answer_are_refused(books: Books) -> None:
    books.open("wallet")
    run = books.open_day("2026-01-31")
    with pytest.raises(UnknownBalance, match="there is no balance bln_nobody"):
        books.balance("nobody", at="2026-02-01")
    with pytest.raises(UnknownRun, match="there is no run 99"):
        books.balance("wallet", at="2026-02-01", known_at=99)
    with pytest.raises(UnknownRun, match="2026-01-31 has no certified close"):
        books.balance("wallet", at="2026-02-01", known_at="2026-01-31")
    with pytest.raises(UnknowableAt, match="is open: only a certified run says what was known"):
        books.balance("wallet", at="2026-02-01", known_at=run.run_id)


def test_what_was_known_before_a_restore_is_refused_and_the_rest_is_proved_anew(books: Books) -> None:
    """A copy simulated in place: the runs say another cluster cut them."""
    books.post("""
        recorded          source  destination  amount
        2026-01-31 09:00  @world  wallet       10.00 USD
    """)
    old = books.close_day("2026-01-31")
    books.execute("ALTER TABLE ledger_eod.runs DISABLE TRIGGER refuse_edit")
    books.execute("UPDATE ledger_eod.runs SET system_identifier = '1', cut = '900000000:900000000:'")
    books.execute("ALTER TABLE ledger_eod.runs ENABLE TRIGGER refuse_edit")
    books.post("""
        recorded          effective         source  destination  amount
        2026-02-01 09:00  2026-01-20 09:00  @world  wallet        5.00 USD
    """)
    for from_source in (False, True):
        assert books.balance("wallet", at="2026-02-01", from_source=from_source) == "15.00"
        with pytest.raises(
            UnknowableAt, match=r"was cut before this database was restored as a copy: .* ledger_eod\.daily_balances"
        ):
            books.balance("wallet", at="2026-02-01", known_at=old.run_id, from_source=from_source)
    run = books.close_day("2026-02-01")
    assert run.base_run_id is None
    assert_proved(books, run)
    assert books.balance("wallet", at="2026-02-01", known_at=run.run_id) == "15.00"
    assert books.rows("SELECT count(*) FROM blnk.transactions WHERE recorded_xid IS NOT NULL") == [(0,)]
    books.post("""
        recorded          source  destination  amount
        2026-02-02 09:00  @world  wallet        1.00 USD
    """)
    assert books.rows("SELECT count(*) FROM blnk.transactions WHERE recorded_xid IS NOT NULL") == [(1,)]
    following = books.close_day("2026-02-02")
    assert (following.base_run_id, following.genesis_run_id) == (run.run_id, run.run_id)
    assert_proved(books, following)
    assert following.business_date == date(2026, 2, 2)
