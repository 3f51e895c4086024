"""A process of its own that closes one day: ``python -m tests.testing.close_process URL DATE``. Made to be killed.

Says on standard output what it is at, one word a line, and ends with ``held-elsewhere``, ``certified`` or
``certified-already``.
"""

from __future__ import annotations

import sys
from datetime import date, timedelta

from sqlalchemy import make_url

from ledger_db.close.activity import collect_activity
from ledger_db.close.certification import certify_run
from ledger_db.close.opening import open_close
from ledger_db.close.runs import find_run, hold_run
from ledger_db.close.snapshots import ensure_partition, plan_key_ranges, write_snapshot_batch
from ledger_db.core.calendar import BusinessCalendar
from ledger_db.server.connections import make_engine


def say(what: str) -> None:
    sys.stdout.write(f"{what}\n")
    sys.stdout.flush()


def main(url: str, written_date: str) -> None:
    engine = make_engine(make_url(url))
    day = date.fromisoformat(written_date)
    calendar = BusinessCalendar()
    with engine.begin() as connection:
        run = open_close(
            connection, business_date=day, calendar=calendar, now=calendar.closes_at(day) + timedelta(minutes=5)
        )
    say(f"opened-{run.run_id}")
    with hold_run(engine, run.run_id) as mine:
        if not mine:
            say("held-elsewhere")
            return
        with engine.begin() as connection:
            if find_run(connection, run.run_id).certified:
                say("certified-already")
                return
        with engine.begin() as connection:
            collect_activity(connection, run.run_id)
        say("collected")
        with engine.begin() as connection:
            ensure_partition(connection, day)
            ranges = plan_key_ranges(connection, run.run_id, batch_size=5)
        say("planned")
        for keys in ranges:
            with engine.begin() as connection:
                write_snapshot_batch(connection, run.run_id, keys)
            say(f"written-{keys.first_key}")
        with engine.begin() as connection:
            certify_run(connection, run.run_id)
        say("certified")


if __name__ == "__main__":
    main(*sys.argv[1:])
