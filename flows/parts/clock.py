"""The clock of a flow: its own scheduled start. No other place in a flow reads the time of day."""

from __future__ import annotations

from datetime import UTC, date, datetime

from prefect import runtime

from ledger_db.errors import ConfigurationError
from tasks.close import calendar


def as_of() -> datetime:
    """When this flow run was due, in UTC: the same for a late start or a retry."""
    scheduled: datetime = runtime.flow_run.scheduled_start_time
    return datetime.fromtimestamp(scheduled.timestamp(), tz=UTC)


def dated_name(flow_name: str, business_date: date | str | None, *, in_progress: bool = False) -> str:
    """A flow run's name by its business date, so that the list of runs reads as a close calendar.

    Without a date: the last one that has ended at the scheduled start, or the one in progress then.
    """
    if business_date is None:
        try:
            days = calendar()
            business_date = days.business_date_of(as_of()) if in_progress else days.last_ended(as_of())
        except ConfigurationError:  # the flow's first step reports it
            return flow_name
    return f"{flow_name}-{business_date}"
