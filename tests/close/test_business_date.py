"""The business date that the database gives an instant is the calendar's, in every zone and at every change of clocks.

But for a zone that skips a whole day, as Samoa did on 30 December 2011: PostgreSQL reads its times otherwise.
"""

from __future__ import annotations

from datetime import UTC, datetime, time, timedelta
from itertools import pairwise
from zoneinfo import ZoneInfo

import pytest
from sqlalchemy import Connection, text

from ledger_db.core.calendar import BusinessCalendar
from tests.testing.books import Books

ZONES = (
    "UTC", "Europe/Berlin", "America/New_York", "Asia/Kolkata", "Australia/Lord_Howe", "Pacific/Apia", "Asia/Gaza",
    "America/Sao_Paulo", "Africa/Cairo", "America/Havana",
)  # fmt: skip
CUT_OFFS = (time(0), time(0, 30), time(1, 59), time(2), time(2, 30), time(11, 59), time(12), time(17), time(23, 30))


def changes(zone: ZoneInfo, year: int) -> list[datetime]:
    """The instants, to the hour, at which a zone's clocks change in a year."""
    hours = [datetime(year, 1, 1, tzinfo=UTC) + timedelta(hours=n) for n in range(366 * 24)]
    return [
        later
        for earlier, later in pairwise(hours)
        if earlier.astimezone(zone).utcoffset() != later.astimezone(zone).utcoffset()
    ]


def by_database(connection: Connection, calendar: BusinessCalendar, instants: list[datetime]) -> list[object]:
    return list(
        connection.scalars(
            text(
                "SELECT ledger_eod.business_date_of(instant, :zone, :cut_off) "
                "FROM unnest(CAST(:instants AS timestamptz[])) WITH ORDINALITY AS asked (instant, place) ORDER BY place"
            ),
            {"zone": calendar.zone.key, "cut_off": calendar.cut_off, "instants": instants},
        )
    )


@pytest.mark.parametrize("name", ZONES)
def test_the_database_dates_an_instant_as_the_calendar_does(books: Books, name: str) -> None:
    zone = ZoneInfo(name)
    turns = [turn for year in (2015, 2025) for turn in changes(zone, year)] or [datetime(2025, 1, 1, tzinfo=UTC)]
    instants = [turn + timedelta(minutes=15 * n) for turn in turns for n in range(-200, 200)]
    with books.engine.connect() as connection:
        for cut_off in CUT_OFFS:
            calendar = BusinessCalendar(zone, cut_off)
            expected = [calendar.business_date_of(instant) for instant in instants]
            assert by_database(connection, calendar, instants) == expected, (name, cut_off)
