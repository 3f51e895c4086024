"""A process of its own that closes one day: ``python -m tests.testing.close_process URL DATE``. Made to be killed.

Writes to standard output which step it has done, one word a line, and ends with ``held-elsewhere``, ``certified`` or
``certified-already``.
"""

from __future__ import annotations

import sys
from datetime import date, timedelta

from sqlalchemy import make_url

from ledger_db.close.driver import close_day
from ledger_db.core.calendar import BusinessCalendar
from ledger_db.errors import RunAtWork
from ledger_db.server.connections import make_engine


def say(what: str) -> None:
    sys.stdout.write(f"{what}\n")
    sys.stdout.flush()


def say_step(step: str, key: int | None) -> None:
    say(step.replace(" ", "-") if key is None else f"{step}-{key}")


def main(url: str, written_date: str) -> None:
    day = date.fromisoformat(written_date)
    calendar = BusinessCalendar()
    now = calendar.closes_at(day) + timedelta(minutes=5)
    try:
        close_day(make_engine(make_url(url)), day, calendar=calendar, now=now, batch_size=5, report=say_step)
    except RunAtWork:
        say("held-elsewhere")


if __name__ == "__main__":
    main(*sys.argv[1:])
