"""The cut: which rows exist for a run, and on which business dates they fall.

A cut is a ``pg_snapshot``. Statements ask for it through ``in_cut.sql``, ``after_cut.sql`` and ``since_base.sql`` only;
this module gives them their parameters.
"""

from __future__ import annotations

from datetime import date, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

from sqlalchemy import Connection, select

from ledger_db.close import tables
from ledger_db.close.runs import Run, find_run
from ledger_db.core.calendar import BusinessCalendar

#: Late arrivals older than this many days before the first close are dated on the first day of that window.
LATE_WINDOW_DAYS = 3650


def boundaries_of(connection: Connection, run: Run) -> list[tuple[date, datetime]]:
    """The business dates a run's activity may fall on, each with the instant it opens at, ascending.

    Where a date was closed before, the boundaries stored then count, not what today's settings would make of them; no
    later run changes the answer. A run without base has nothing to be late for: all of its activity is on its own date.
    """
    if run.base_run_id is None:
        return [(run.business_date, run.opens_at)]
    runs = tables.runs
    closes = connection.execute(
        select(runs.c.business_date, runs.c.opens_at, runs.c.closes_at).where(
            runs.c.kind == "close",
            runs.c.status == "certified",
            runs.c.genesis_run_id == run.genesis_run_id,
            runs.c.run_id < run.run_id,
        )
    ).all()
    stored = {row.business_date: row.opens_at for row in closes}
    stored |= {row.business_date + timedelta(days=1): row.closes_at for row in closes}
    first = min(stored) - timedelta(days=LATE_WINDOW_DAYS)
    calendar = BusinessCalendar(zone=ZoneInfo(run.time_zone), cut_off=run.cut_off)
    # on beyond the base: an interim run of a date that is closed has activity after that close, which is not late
    last = max(run.business_date, find_run(connection, run.base_run_id).business_date + timedelta(days=1))
    return _between_stored(calendar.boundaries(first, last), stored)


def _between_stored(computed: list[tuple[date, datetime]], stored: dict[date, datetime]) -> list[tuple[date, datetime]]:
    """Boundaries in order: after a change of zone or cut-off a computed one may lie beyond a stored neighbour."""
    rising: list[tuple[date, datetime]] = []
    for day, opens_at in computed:
        floor = rising[-1][1] if rising else opens_at
        rising.append((day, stored.get(day, max(opens_at, floor))))
    ordered = rising[-1:]
    for day, opens_at in reversed(rising[:-1]):
        ordered.append((day, min(opens_at, ordered[-1][1])))
    return ordered[::-1]


def cut_parameters(connection: Connection, run: Run) -> dict[str, Any]:
    """A run's cut, its base's, and its calendar, as the statements over its raw rows take them."""
    base = None if run.base_run_id is None else find_run(connection, run.base_run_id)
    boundaries = boundaries_of(connection, run)
    return {
        "closes_at": run.closes_at,
        "cut": run.cut,
        "base_closes_at": "-infinity" if base is None else base.closes_at,
        "base_cut": None if base is None else base.cut,
        "business_dates": [day for day, _ in boundaries],
        "opens_at": [opens_at for _, opens_at in boundaries],
    }


def cut_of(connection: Connection, run_id: int | None, prefix: str) -> dict[str, Any]:
    """A close's cut as the statements take it; without one, nothing is in it."""
    run = None if run_id is None else find_run(connection, run_id)
    return {
        f"{prefix}_closes_at": "-infinity" if run is None else run.closes_at,
        f"{prefix}_cut": None if run is None else run.cut,
    }
