"""Business dates: half-open intervals that share their boundaries, in every zone, at every change of the clock."""

from __future__ import annotations

from datetime import UTC, date, datetime, time, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ledger_db.core.calendar import BusinessCalendar
from tests.testing.books import Books, instant, major
from tests.testing.oracle import assert_proved

BERLIN = ZoneInfo("Europe/Berlin")

#: Zones with half-hour and negative changes of the clock, with changes at midnight, and across the date line.
ZONES = (
    "UTC", "Europe/Berlin", "America/New_York", "Asia/Kolkata", "Australia/Lord_Howe", "America/St_Johns",
    "Pacific/Apia", "Pacific/Kiritimati", "Pacific/Honolulu", "America/Sao_Paulo", "Africa/Cairo", "Asia/Kathmandu",
    "Europe/Dublin", "Africa/Casablanca", "Asia/Beirut", "America/Havana", "Antarctica/Troll",
)  # fmt: skip

calendars = st.builds(
    BusinessCalendar,
    zone=st.sampled_from(ZONES).map(ZoneInfo),
    cut_off=st.one_of(st.sampled_from([time(0), time(2, 30), time(11, 59), time(12), time(17)]), st.times()),
)
days = st.dates(date(1971, 1, 1), date(2037, 12, 31))


@pytest.mark.parametrize(
    ("cut_off", "business_date", "opens_at", "closes_at", "hours"),
    [
        ("00:00", "2026-03-28", "2026-03-27 23:00", "2026-03-28 23:00", 24),
        ("00:00", "2026-03-29", "2026-03-28 23:00", "2026-03-29 22:00", 23),
        ("00:00", "2026-10-25", "2026-10-24 22:00", "2026-10-25 23:00", 25),
        ("17:00", "2026-03-29", "2026-03-28 16:00", "2026-03-29 15:00", 23),
        ("17:00", "2026-10-25", "2026-10-24 15:00", "2026-10-25 16:00", 25),
        # 02:30 does not exist on 29 March: the boundary has the offset before the change
        ("02:30", "2026-03-28", "2026-03-28 01:30", "2026-03-29 01:30", 24),
        ("02:30", "2026-03-29", "2026-03-29 01:30", "2026-03-30 00:30", 23),
        # 02:30 occurs twice on 25 October: the boundary is the first occurrence
        ("02:30", "2026-10-24", "2026-10-24 00:30", "2026-10-25 00:30", 24),
        ("02:30", "2026-10-25", "2026-10-25 00:30", "2026-10-26 01:30", 25),
    ],
)
def test_berlin_days_when_the_clock_changes(
    cut_off: str, business_date: str, opens_at: str, closes_at: str, hours: int
) -> None:
    calendar = BusinessCalendar(BERLIN, time.fromisoformat(cut_off))
    day = date.fromisoformat(business_date)
    assert calendar.opens_at(day) == instant(opens_at)
    assert calendar.closes_at(day) == instant(closes_at)
    assert calendar.closes_at(day) - calendar.opens_at(day) == timedelta(hours=hours)


@pytest.mark.parametrize(
    ("cut_off", "at", "business_date"),
    [
        ("00:00", "2026-01-31T23:59:59.999999+00:00", "2026-01-31"),
        ("00:00", "2026-02-01T00:00:00+00:00", "2026-02-01"),  # closes_at itself belongs to the next day
        ("00:00", "2026-02-01T05:29:59+05:30", "2026-01-31"),
        ("17:00", "2026-01-31T16:59:59+00:00", "2026-01-31"),
        ("17:00", "2026-01-31T17:00:00+00:00", "2026-02-01"),
        ("02:30", "2026-02-01T02:29:59+00:00", "2026-01-31"),
        ("02:30", "2026-02-01T02:30:00+00:00", "2026-02-01"),
    ],
)
def test_an_instant_belongs_to_one_date(cut_off: str, at: str, business_date: str) -> None:
    calendar = BusinessCalendar(cut_off=time.fromisoformat(cut_off))
    assert calendar.business_date_of(datetime.fromisoformat(at)).isoformat() == business_date


def test_a_naive_instant_is_refused_with_what_to_write_instead() -> None:
    with pytest.raises(ValueError, match=r"2026-01-31T12:00:00 has no offset: write .*2026-01-31T12:00:00\+00:00"):
        BusinessCalendar().business_date_of(datetime(2026, 1, 31, 12))  # noqa: DTZ001


@given(calendar=calendars, at=st.datetimes(datetime(1971, 1, 1), datetime(2037, 12, 31)))  # noqa: DTZ001
@settings(max_examples=300, deadline=None)
def test_every_instant_is_in_exactly_one_date(calendar: BusinessCalendar, at: datetime) -> None:
    moment = at.replace(tzinfo=UTC)
    day = calendar.business_date_of(moment)
    holding = [
        near
        for near in (day + timedelta(days=days) for days in range(-3, 4))
        if calendar.opens_at(near) <= moment < calendar.closes_at(near)
    ]
    assert holding == [day]


@given(calendar=calendars, day=days)
@settings(max_examples=300, deadline=None)
def test_consecutive_dates_share_their_boundary_and_never_overlap(calendar: BusinessCalendar, day: date) -> None:
    following = day + timedelta(days=1)
    assert calendar.closes_at(day) == calendar.opens_at(following)
    assert calendar.opens_at(day) <= calendar.closes_at(day)
    if calendar.opens_at(day) < calendar.closes_at(day):  # Samoa skipped one whole day
        assert calendar.business_date_of(calendar.opens_at(day)) == day
        assert calendar.business_date_of(calendar.closes_at(day) - timedelta(microseconds=1)) == day
        assert calendar.last_ended(calendar.closes_at(day) - timedelta(microseconds=1)) < day


@pytest.mark.parametrize("cut_off", ["00:00", "17:00", "02:30"])
@pytest.mark.parametrize("change", ["2026-03-29", "2026-10-25"])
def test_days_around_a_change_of_the_clock_add_up(books: Books, cut_off: str, change: str) -> None:
    """A posting every half hour, each twice the one before, so that a sum shows exactly which ones it includes."""
    calendar = BusinessCalendar(BERLIN, time.fromisoformat(cut_off))
    days = [date.fromisoformat(change) + timedelta(days=offset) for offset in (-1, 0, 1)]
    moments = []
    moment = calendar.opens_at(days[0])
    while moment < calendar.closes_at(days[-1]):
        moments.append(moment)
        moment += timedelta(minutes=30)
    rows = [f"{at:%Y-%m-%d %H:%M}  @world  wallet  {major(1 << number)} USD" for number, at in enumerate(moments)]
    books.post("\n".join(["recorded  source  destination  amount", *rows]))

    before = 0
    for day in days:
        run = books.close_day(day.isoformat(), calendar=calendar)
        assert (run.opens_at, run.closes_at) == (calendar.opens_at(day), calendar.closes_at(day))
        assert_proved(books, run)
        ((after,),) = books.rows(
            "SELECT balance FROM ledger_eod.daily_balances WHERE run_id = :run AND balance_id = 'bln_wallet'",
            run=run.run_id,
        )
        after = int(after)
        mine = sum(1 << number for number, at in enumerate(moments) if run.opens_at <= at < run.closes_at)
        assert after - before == mine
        before = after
    assert before == (1 << len(moments)) - 1
