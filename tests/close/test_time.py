"""When a posting counts and when it was learned of: back-dated, late, long, future-dated, missed nights, any zone."""

from __future__ import annotations

import time
from collections.abc import Iterator
from datetime import UTC, date, datetime
from zoneinfo import ZoneInfo

import pytest
from sqlalchemy import event, text

from ledger_db.close.activity import late_arrivals, late_totals
from ledger_db.close.opening import dates_to_close
from ledger_db.close.runs import Run
from ledger_db.core.calendar import BusinessCalendar
from ledger_db.errors import OutOfOrder
from ledger_db.history.balance_at import balance_at
from ledger_db.server.connections import make_engine
from tests.testing.books import Books, Ledger, instant, major
from tests.testing.oracle import assert_proved


def late_of(books: Books, run: Run) -> list[tuple[str, str, str, int]]:
    """A run's late arrivals: balance, business date, effect, postings."""
    with books.engine.connect() as connection:
        return sorted(
            (late.balance_id, str(late.effective_date), major(late.effect), late.posting_count)
            for late in late_arrivals(connection, run.run_id)
        )  # fmt: skip


def snapshot(books: Books, run: Run, name: str) -> str:
    ((amount,),) = books.rows(
        "SELECT balance FROM ledger_eod.daily_balances WHERE run_id = :run AND balance_id = :id",
        run=run.run_id,
        id=books.id_of(name),
    )
    return major(amount)


def test_back_dated_after_the_close_reaches_the_day_it_belongs_to(books: Books) -> None:
    books.post("""
        recorded          source  destination  amount
        2026-01-05 09:00  @world  wallet       10000.00 USD
    """)
    january = books.close_day("2026-01-31")
    books.close_day("2026-02-01")
    books.post("""
        recorded          effective         source  destination  amount
        2026-02-02 10:00  2026-01-20 00:00  @world  wallet       5000.00 USD
    """)

    for from_source in (False, True):
        assert books.balance("wallet", at="2026-02-01", from_source=from_source) == "15000.00"
        assert books.balance("wallet", at="2026-01-20", from_source=from_source) == "10000.00"
        assert books.balance("wallet", at="2026-02-01", known_at="2026-01-31", from_source=from_source) == "10000.00"
    assert snapshot(books, january, "wallet") == "10000.00"

    february = books.close_day("2026-02-02")
    assert late_of(books, february) == [
        ("bln_wallet", "2026-01-20", "5000.00", 1),
        ("bln_world_usd", "2026-01-20", "-5000.00", 1),
    ]
    assert snapshot(books, february, "wallet") == "15000.00"
    assert_proved(books, february)
    for from_source in (False, True):
        assert books.balance("wallet", at="2026-02-01", from_source=from_source) == "15000.00"
        assert books.balance("wallet", at="2026-01-19", from_source=from_source) == "10000.00"
        assert books.balance("wallet", at="2026-02-01", known_at="2026-02-02", from_source=from_source) == "15000.00"
        assert books.balance("wallet", at="2026-02-01", known_at="2026-01-31", from_source=from_source) == "10000.00"


def test_queued_before_midnight_applied_after_the_close_is_the_next_runs_late_arrival(books: Books) -> None:
    books.post("""
        recorded          source  destination  amount      status  reference
        2026-01-31 23:59  @world  wallet       700.00 USD  QUEUED  q
    """)
    january = books.close_day("2026-01-31", now="2026-02-01 00:05")
    books.post("""
        recorded          source  destination  amount      status   reference  parent
        2026-01-31 23:59  @world  wallet       700.00 USD  APPLIED  q_applied  q
    """)
    february = books.close_day("2026-02-01")

    assert snapshot(books, january, "wallet") == "0.00"
    assert snapshot(books, february, "wallet") == "700.00"
    assert late_of(books, february) == [
        ("bln_wallet", "2026-01-31", "700.00", 1),
        ("bln_world_usd", "2026-01-31", "-700.00", 1),
    ]
    assert books.balance("wallet", at="2026-02-01") == "700.00"
    assert books.balance("wallet", at="2026-02-01", known_at="2026-01-31") == "0.00"
    assert books.inflight("wallet", at="2026-02-02") == "0.00"


def test_a_long_transaction_is_a_late_arrival_and_counted_once(books: Books) -> None:
    """It was open when the cut was taken, holds its locks meanwhile, and commits two closes later."""
    for name in ("@world", "wallet"):
        books.open(name)
    with books.engine.connect() as long_session, long_session.begin() as open_transaction:
        books.post_on(long_session, """
            recorded          source  destination  amount
            2026-01-31 22:00  @world  wallet       300.00 USD
        """)  # fmt: skip
        first = books.close_day("2026-01-31")
        second = books.close_day("2026-02-01")
        open_transaction.commit()
    third = books.close_day("2026-02-02")
    fourth = books.close_day("2026-02-03")

    assert [snapshot(books, run, "wallet") for run in (first, second, third, fourth)] == [
        "0.00", "0.00", "300.00", "300.00",
    ]  # fmt: skip
    assert late_of(books, first) == late_of(books, second) == late_of(books, fourth) == []
    assert late_of(books, third) == [
        ("bln_wallet", "2026-01-31", "300.00", 1),
        ("bln_world_usd", "2026-01-31", "-300.00", 1),
    ]
    for known_at, amount in ((first.run_id, "0.00"), (second.run_id, "0.00"), (third.run_id, "300.00")):
        for from_source in (False, True):
            assert books.balance("wallet", at="2026-02-01", known_at=known_at, from_source=from_source) == amount
    for run in (first, second, third, fourth):
        assert_proved(books, run)


def test_a_lower_id_that_commits_after_a_higher_one_is_not_lost(books: Books) -> None:
    """Two open transactions around one cut: a watermark by id or time would lose the first or count it twice."""
    for name in ("@world", "a", "b", "@other"):
        books.open(name)
    row = "recorded  source  destination  amount\n2026-01-31 12:00  {}  {}  {} USD"
    with books.engine.connect() as early, early.begin() as first:
        books.post_on(early, row.format("@world", "a", "10.00"))
        books.post(row.format("@other", "b", "20.00"))
        closed = books.close_day("2026-01-31")
        first.commit()
    following = books.close_day("2026-02-01")

    assert (snapshot(books, closed, "a"), snapshot(books, closed, "b")) == ("0.00", "20.00")
    assert (snapshot(books, following, "a"), snapshot(books, following, "b")) == ("10.00", "20.00")
    assert [late[0] for late in late_of(books, following)] == ["bln_a", "bln_world_usd"]
    assert_proved(books, closed)
    assert_proved(books, following)


def test_future_dated_enters_the_close_of_its_day(books: Books) -> None:
    books.post("""
        recorded          effective         source  destination  amount
        2026-01-30 09:00  2026-01-30 09:00  @world  wallet       100.00 USD
        2026-01-30 10:00  2026-02-02 12:00  @world  wallet        50.00 USD
    """)
    closes = {day: books.close_day(day) for day in ("2026-01-30", "2026-01-31", "2026-02-01", "2026-02-02")}

    assert books.balance("wallet") == "150.00"
    assert {day: snapshot(books, run, "wallet") for day, run in closes.items()} == {
        "2026-01-30": "100.00", "2026-01-31": "100.00", "2026-02-01": "100.00", "2026-02-02": "150.00",
    }  # fmt: skip
    assert all(late_of(books, run) == [] for run in closes.values())
    for from_source in (False, True):
        assert books.balance("wallet", at="2026-02-02 12:00", from_source=from_source) == "100.00"
        assert books.balance("wallet", at="2026-02-02 12:01", from_source=from_source) == "150.00"
        # known at the first close already, though not effective yet
        assert books.balance("wallet", at="2026-02-03", known_at="2026-01-30", from_source=from_source) == "150.00"
    assert_proved(books, closes["2026-02-02"])


def test_effective_exactly_at_the_boundary_belongs_to_the_next_day(books: Books) -> None:
    books.post("""
        recorded                    source  destination  amount
        2026-01-31 23:59:59.999999  @world  wallet       1.00 USD
        2026-02-01 00:00:00         @world  wallet       2.00 USD
        2026-02-01 00:00:00         @world  wallet       4.00 USD
        2026-02-01 00:00:00         wallet  @world       8.00 USD
    """)
    january, february = books.close_day("2026-01-31"), books.close_day("2026-02-01")

    assert snapshot(books, january, "wallet") == "1.00"
    assert snapshot(books, february, "wallet") == "-1.00"
    for from_source in (False, True):
        assert books.balance("wallet", at="2026-02-01", from_source=from_source) == "1.00"
        assert books.balance("wallet", at="2026-02-01 00:00:00.000001", from_source=from_source) == "-1.00"
    assert_proved(books, january)
    assert_proved(books, february)


@pytest.fixture(params=["Asia/Kolkata", "America/New_York"])
def abroad(request: pytest.FixtureRequest, ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> Iterator[Books]:
    """The same ledger from a host and sessions in another zone."""
    zone = request.param
    monkeypatch.setenv("TZ", zone)
    time.tzset()
    engine = make_engine(ledger.url)

    @event.listens_for(engine, "connect")
    def set_zone(dbapi_connection, _record) -> None:  # type: ignore[no-untyped-def]
        dbapi_connection.execute(f"SET TimeZone = '{zone}'")
        dbapi_connection.commit()

    yield Books(Ledger(ledger.url, engine))
    engine.dispose()
    monkeypatch.undo()
    time.tzset()


def test_the_zone_of_session_and_host_changes_no_answer(abroad: Books, ledger: Ledger) -> None:
    assert abroad.rows("SHOW TimeZone")[0][0] != "UTC"
    assert datetime.fromtimestamp(0).hour != 0  # noqa: DTZ006 - the host's zone is the point
    at_home = Books(ledger)
    abroad.post("""
        recorded          source  destination  amount
        2026-01-31 10:00  @world  wallet        400.00 USD
        2026-01-31 20:00  @world  wallet       1000.00 USD
        2026-02-01 03:00  @world  wallet          7.00 USD
    """)
    run = abroad.close_day("2026-01-31")
    assert run.closes_at == datetime(2026, 2, 1, tzinfo=UTC)
    assert snapshot(abroad, run, "wallet") == "1400.00"
    assert_proved(abroad, run)
    following = at_home.close_day("2026-02-01")  # the chain goes on from a session in another zone
    assert snapshot(abroad, following, "wallet") == "1407.00"

    moments = {
        "2026-01-31T15:30:00+00:00": "400.00",
        "2026-01-31T21:00:00+05:30": "400.00",
        "2026-01-31T10:30:00-05:00": "400.00",
        "2026-02-01T00:00:00+05:30": "400.00",
        "2026-02-01T00:00:00+00:00": "1400.00",
        "2026-02-01T00:00:00-05:00": "1407.00",
    }
    for books in (abroad, at_home):
        for from_source in (False, True):
            answers = {at: books.balance("wallet", at=at, from_source=from_source) for at in moments}
            assert answers == moments
            assert {
                at: books.balance("wallet", at=at, known_at="2026-01-31", from_source=from_source) for at in moments
            } == moments


def test_a_naive_instant_is_refused(books: Books) -> None:
    books.open("wallet")
    with books.engine.connect() as connection, pytest.raises(ValueError, match=r"no offset: write .*2026-01-31T12:00"):
        balance_at(connection, "bln_wallet", datetime(2026, 1, 31, 12))  # noqa: DTZ001


def test_missed_nights_close_in_order_each_at_its_own_cut_off(books: Books) -> None:
    books.post("""
        recorded          source  destination  amount
        2026-01-28 09:00  @world  wallet       1.00 USD
    """)
    books.close_day("2026-01-28")
    books.post("""
        recorded          source  destination  amount
        2026-01-29 09:00  @world  wallet       2.00 USD
        2026-01-30 09:00  @world  wallet       4.00 USD
        2026-01-31 09:00  @world  wallet       8.00 USD
    """)
    now = instant("2026-02-01 00:05")
    with books.engine.connect() as connection:
        due = dates_to_close(connection, last_ended=BusinessCalendar().last_ended(now))
    assert [str(day) for day in due] == ["2026-01-29", "2026-01-30", "2026-01-31"]

    closed = [books.close_day(str(day), now=now) for day in due]
    assert [snapshot(books, run, "wallet") for run in closed] == ["3.00", "7.00", "15.00"]
    assert [run.caught_up for run in closed] == [True, True, False]
    assert all(late_of(books, run) == [] for run in closed)  # missed is not late
    for run in closed:
        assert_proved(books, run)
    with books.engine.connect() as connection:
        assert dates_to_close(connection, last_ended=date(2026, 1, 31)) == []


def test_the_first_close_starts_where_it_is_told_to(books: Books) -> None:
    with books.engine.connect() as connection:
        last = date(2026, 1, 31)
        assert dates_to_close(connection, last_ended=last) == [last]
        assert dates_to_close(connection, last_ended=last, since=date(2026, 1, 30)) == [date(2026, 1, 30), last]
        with pytest.raises(OutOfOrder, match="2026-02-01 has not ended yet"):
            dates_to_close(connection, last_ended=last, since=date(2026, 2, 1))
    books.open("wallet")
    books.close_day("2026-01-20")
    with books.engine.connect() as connection, pytest.raises(OutOfOrder, match="2026-01-21 comes before 2026-01-25"):
        dates_to_close(connection, last_ended=last, since=date(2026, 1, 25))


def test_an_unfinished_first_close_comes_before_the_next_night(books: Books) -> None:
    """Otherwise every following night would be refused until a person notices."""
    books.open("wallet")
    books.open_day("2026-01-30")
    with books.engine.connect() as connection:
        assert dates_to_close(connection, last_ended=date(2026, 1, 31)) == [date(2026, 1, 30), date(2026, 1, 31)]


def test_late_arrivals_are_dated_by_the_boundaries_that_were_closed(books: Books) -> None:
    """After a change of zone and cut-off, a date that was closed keeps the boundaries it was closed with."""
    kiritimati = BusinessCalendar(ZoneInfo("Pacific/Kiritimati"))
    honolulu = BusinessCalendar(ZoneInfo("Pacific/Honolulu"), datetime(2026, 1, 1, 11).time())  # noqa: DTZ001
    books.post("""
        recorded          source  destination  amount
        2026-01-28 09:00  @world  wallet       1.00 USD
    """)
    for day in ("2026-01-28", "2026-01-29", "2026-01-30"):
        books.close_day(day, calendar=kiritimati)
    books.post("""
        recorded          effective         source  destination  amount
        2026-01-31 09:00  2026-01-01 09:00  @world  wallet        2.00 USD
        2026-01-31 09:00  2026-01-28 09:59  @world  wallet        4.00 USD
        2026-01-31 09:00  2026-01-28 10:00  @world  wallet        8.00 USD
        2026-01-31 09:00  2026-01-30 09:59  @world  wallet       16.00 USD
        2026-01-31 09:00  2026-01-30 10:00  @world  wallet       32.00 USD
    """)
    run = books.close_day("2026-01-31", calendar=honolulu)

    assert [late[1:3] for late in late_of(books, run) if late[0] == "bln_wallet"] == [
        ("2025-12-31", "2.00"), ("2026-01-28", "4.00"), ("2026-01-29", "8.00"), ("2026-01-30", "16.00"),
    ]  # fmt: skip
    for at in ("2026-01-28 10:00", "2026-01-29 10:00", "2026-01-30 10:00", "2026-02-01"):
        assert books.balance("wallet", at=at) == books.balance("wallet", at=at, from_source=True)
    assert_proved(books, run)


def test_what_arrives_more_than_ten_years_late_is_dated_on_the_day_it_is_of(books: Books) -> None:
    books.post("""
        recorded          source  destination  amount
        2026-01-29 09:00  @world  wallet       1.00 USD
    """)
    books.close_day("2026-01-29")
    books.close_day("2026-01-30")
    books.post("""
        recorded          effective         source  destination  amount
        2026-01-31 09:00  2013-10-01 12:00  @world  wallet       2.00 USD
        2026-01-31 09:00  1999-12-31 23:59  @world  wallet       4.00 USD
    """)
    run = books.close_day("2026-01-31")
    assert (date(2026, 1, 29) - date(2013, 10, 1)).days == 4503

    assert late_of(books, run) == [
        ("bln_wallet", "1999-12-31", "4.00", 1), ("bln_wallet", "2013-10-01", "2.00", 1),
        ("bln_world_usd", "1999-12-31", "-4.00", 1), ("bln_world_usd", "2013-10-01", "-2.00", 1),
    ]  # fmt: skip
    days = {
        "1999-12-31": "0.00",
        "2000-01-01": "4.00",
        "2013-10-01": "4.00",
        "2013-10-02": "6.00",
        "2026-01-29": "6.00",
    }
    for at, amount in days.items():
        assert books.balance("wallet", at=at) == books.balance("wallet", at=at, from_source=True) == amount
        assert books.balance("wallet", at=at, known_at="2026-01-30") == "0.00"
        assert books.balance("wallet", at=at, known_at="2026-01-31") == amount
    assert snapshot(books, run, "wallet") == "7.00"
    assert_proved(books, run)


def test_late_totals_count_what_the_list_may_leave_out(books: Books) -> None:
    books.post("""
        recorded          source  destination  amount
        2026-01-30 09:00  @world  wallet       1.00 USD
        2026-01-30 09:00  @world  purse        1.00 EUR
    """)
    books.close_day("2026-01-30")
    books.post("""
        recorded          effective         source  destination  amount
        2026-01-31 09:00  2026-01-29 00:00  @world  wallet       2.00 USD
        2026-01-31 09:00  2026-01-30 00:00  wallet  @world       0.50 USD
        2026-01-31 09:00  2026-01-30 00:00  @world  purse        3.00 EUR
    """)
    books.post("""
        recorded          effective         source  destination  amount    status
        2026-01-31 09:00  2026-01-29 00:00  wallet  @world       9.00 USD  INFLIGHT
    """)
    run = books.close_day("2026-01-31")
    with books.engine.connect() as connection:
        totals = [
            (late.currency, late.balance_count, late.posting_count, major(late.credit_balance),
             major(late.debit_balance), major(late.inflight_credit_balance), major(late.inflight_debit_balance))
            for late in late_totals(connection, run.run_id)
        ]  # fmt: skip
        assert totals == [("EUR", 2, 2, "3.00", "3.00", "0.00", "0.00"), ("USD", 2, 6, "2.50", "2.50", "9.00", "9.00")]
        arrivals = late_arrivals(connection, run.run_id)
        assert [(late.balance_id, major(late.effect), major(late.inflight_effect)) for late in arrivals] == [
            ("bln_world_usd", "-2.00", "9.00"), ("bln_wallet", "2.00", "-9.00"),
            ("bln_world_eur", "-3.00", "0.00"), ("bln_purse", "3.00", "0.00"),
            ("bln_world_usd", "0.50", "0.00"), ("bln_wallet", "-0.50", "0.00"),
        ]  # fmt: skip
        assert late_arrivals(connection, run.run_id, limit=1) == arrivals[:1]
        assert connection.scalar(text("SELECT count(*) FROM ledger_eod.activity WHERE is_late")) == 6
