"""Where the closes of a ledger begin: the first close holds what was posted before it, which has no close of its own.

On a ledger that has a history somebody chooses. The choice is kept, so that a night asks at most until it is made.
"""

from __future__ import annotations

from datetime import date, datetime
from typing import Any, Final, Literal, cast

from sqlalchemy import Connection, Row, func, insert, select

from ledger_db.close import tables
from ledger_db.close.captured import require_balances
from ledger_db.close.opening import require_ended
from ledger_db.core.calendar import BusinessCalendar
from ledger_db.errors import FirstCloseRefused, FirstCloseUndecided, Hint, Misused
from ledger_db.postings.rules import statement
from ledger_db.server.connections import without_time_limit

Choice = Literal["from-first-posting", "only-last"]

#: A date so long before the first posting is more likely a mistyped year than the first date that is meant.
UNLIKELY_DAYS: Final = 31
#: So many closes in one go are confirmed: ten years.
MANY_CLOSES: Final = 3_650


def first_date_to_close(
    connection: Connection,
    *,
    calendar: BusinessCalendar,
    last: date,
    since: date | None = None,
    choice: Choice | None = None,
    confirmed: bool = False,
) -> date | None:
    """The business date with which the closes of a ledger begin; None: they have begun.

    ``since``, ``choice``: what somebody chose, if anything; it is kept. ``last``: the last date that is to be closed.
    ``confirmed``: also a date that looks mistyped.

    Raises:
        FirstCloseUndecided: the ledger has a history, and nobody has chosen yet; or the choice must be confirmed.
        Misused: both are given.
        FirstCloseRefused: closes have begun, later than what is chosen.
        NothingSelected: the ledger has no balances.
    """
    if since is not None and choice is not None:
        raise Misused(f"closes begin with {since} or with {choice.replace('-', ' ')}: choose one of the two")
    begun = _first_close(connection)
    if begun is not None:
        _require_no_earlier(connection, begun, calendar, since=since, choice=choice)
        return None
    require_balances(connection)
    kept = _kept(connection)
    if since is None and choice is None and kept is not None:
        return cast(date, kept.first_date)
    posted = first_posting_date(connection, calendar)
    begins = last if posted is None else min(posted, last)
    if since is None and choice is None:
        if begins == last:
            return last  # it has no history that a choice could leave out
        raise _undecided(begins, last)
    first = since or (begins if choice == "from-first-posting" else last)
    if not confirmed:
        _require_likely(first, begins, last)
    connection.execute(
        insert(tables.first_closes).values(
            first_date=first, choice=choice if since is None else "since", first_posting_date=posted
        )
    )
    return first


def require_first_date(
    connection: Connection, business_date: date, *, calendar: BusinessCalendar, now: datetime
) -> None:
    """Refuse to begin the closes of a ledger with a date by which nobody has chosen to begin.

    Raises:
        PeriodNotEnded: it has not ended at ``now``.
        FirstCloseUndecided: it has no close, was posted to before that date, and another date or none was chosen.
        NothingSelected: the ledger has no balances.
    """
    if _first_close(connection) is not None:
        return
    require_ended(calendar, business_date, now)
    require_balances(connection)
    kept = _kept(connection)
    if kept is not None and kept.first_date == business_date:
        return
    posted = first_posting_date(connection, calendar)
    if posted is not None and posted < business_date:
        raise _undecided(posted, business_date)


def _undecided(begins: date, last: date) -> FirstCloseUndecided:
    return FirstCloseUndecided(
        f"the first posting of this ledger is of {begins}, and none of the {(last - begins).days + 1:,} business dates "
        f"from then to {last} is closed. The first close holds what was posted before it, and no close can be put "
        "before it afterwards",
        hint=Hint.choose_first_close,
    )


def _kept(connection: Connection) -> Row[Any] | None:
    """The newest choice."""
    chosen = tables.first_closes
    return connection.execute(select(chosen).order_by(chosen.c.first_close_id.desc()).limit(1)).one_or_none()


def _first_close(connection: Connection) -> date | None:
    """The first date of the closes that there are; of an open one where none is certified."""
    runs = tables.runs
    found = connection.execute(
        select(
            func.min(runs.c.business_date).filter(runs.c.status == "certified").label("certified"),
            func.min(runs.c.business_date).filter(runs.c.status == "open").label("unfinished"),
        ).where(runs.c.kind == "close")
    ).one()
    first: date | None = found.certified or found.unfinished
    return first


def _require_no_earlier(
    connection: Connection, begun: date, calendar: BusinessCalendar, *, since: date | None, choice: Choice | None
) -> None:
    asked = since
    if choice == "from-first-posting":
        kept = _kept(connection)
        if kept is not None and kept.choice == choice:  # by the closes that there are, whatever was backdated since
            return
        asked = first_posting_date(connection, calendar)
    if asked is not None and asked < begun:
        raise FirstCloseRefused(
            f"the first close of this ledger is of {begun}: it holds what was posted before, and no close can be put "
            f"before it, so not from {asked} on",
            hint=Hint.ask_history,
        )


def _require_likely(first: date, begins: date, last: date) -> None:
    count = (last - first).days + 1
    if (begins - first).days > UNLIKELY_DAYS:
        raise FirstCloseUndecided(
            f"closes from {first} on would begin {(begins - first).days:,} days before the first posting, of {begins}: "
            f"{count:,} dates up to {last}",
            hint=Hint.confirm_first_close,
        )
    if count > MANY_CLOSES:
        raise FirstCloseUndecided(
            f"closes from {first} on would be {count:,} up to {last}", hint=Hint.confirm_first_close
        )


def first_posting_date(connection: Connection, calendar: BusinessCalendar) -> date | None:
    """The business date of the first posting by its effective instant, None without one. Cost: one pass over them."""
    without_time_limit(connection)
    instant: datetime | None = connection.scalar(statement(connection, "close.first_posting_date"))
    return None if instant is None else calendar.business_date_of(instant)
