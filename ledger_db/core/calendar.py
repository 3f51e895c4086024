"""Business dates: a zone and a cut-off time give each calendar date a half-open UTC interval.

A business date is named after the calendar day that holds most of it. A cut-off before noon (the default is midnight)
closes the date on the next calendar day; a cut-off from noon on closes it on the same day. A cut-off in the hour that
is skipped in spring uses the offset before the change. One in the repeated hour of autumn is its first occurrence.
Consecutive dates always share their boundary, so every instant is in exactly one date.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from zoneinfo import ZoneInfo

MIDNIGHT = time(0)
NOON = time(12)
UTC_ZONE = ZoneInfo("UTC")


@dataclass(frozen=True)
class BusinessCalendar:
    """The calendar of one ledger: IANA ``zone`` and local ``cut_off``."""

    zone: ZoneInfo = UTC_ZONE
    cut_off: time = MIDNIGHT

    def closes_at(self, business_date: date) -> datetime:
        """The first instant after the date, in UTC."""
        day = business_date if self.cut_off >= NOON else business_date + timedelta(days=1)
        return datetime.combine(day, self.cut_off, self.zone).astimezone(UTC)

    def opens_at(self, business_date: date) -> datetime:
        """The first instant of the date, in UTC: the instant at which the previous date closes."""
        return self.closes_at(business_date - timedelta(days=1))

    def business_date_of(self, instant: datetime) -> date:
        """The date whose interval contains the instant.

        Raises:
            ValueError: the instant has no offset.
        """
        if instant.tzinfo is None:
            raise ValueError(f"{instant.isoformat()} has no offset: write for instance {instant.isoformat()}+00:00")
        candidate = instant.astimezone(self.zone).date() - timedelta(days=1)
        while self.closes_at(candidate) <= instant:
            candidate += timedelta(days=1)
        return candidate

    def last_ended(self, instant: datetime) -> date:
        """The newest business date that has ended at an instant."""
        return self.business_date_of(instant) - timedelta(days=1)

    def boundaries(self, first: date, last: date) -> list[tuple[date, datetime]]:
        """Each date from ``first`` to ``last`` with the instant it opens at, ascending."""
        return [
            (first + timedelta(days=days), self.opens_at(first + timedelta(days=days)))
            for days in range((last - first).days + 1)
        ]
