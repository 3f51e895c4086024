"""A job's log lines, and the same facts as events for a caller that watches the job in this process."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field, replace
from typing import Any

from prefect import get_run_logger

from tasks.logs import job_line


@dataclass(frozen=True)
class JobEvent:
    """One step of a job. ``facts`` are the other fields of its log line, as Python values, without the timestamp."""

    operation: str
    status: str
    facts: Mapping[str, Any]


_watchers: ContextVar[tuple[Callable[[JobEvent], None], ...]] = ContextVar("watchers", default=())


@contextmanager
def watching(show: Callable[[JobEvent], None]) -> Iterator[None]:
    """Call ``show`` for each step of the flow runs that this block starts, flows that they call included.

    It is called in the thread of the flow, right after the log line. Flow runs in other processes are not seen, nor
    those that other threads start. An exception from ``show`` fails the flow.
    """
    token = _watchers.set((*_watchers.get(), show))
    try:
        yield
    finally:
        _watchers.reset(token)


def report(message: str, *, level: int = logging.INFO, **fields: Any) -> None:
    """Write a job's log line and notify the watchers. The fields include ``operation`` and ``status``."""
    get_run_logger().log(level, job_line(message, **fields))
    facts = {name: value for name, value in fields.items() if name not in ("operation", "status")}
    event = JobEvent(fields["operation"], fields["status"], facts)
    for show in _watchers.get():
        show(event)


@dataclass(frozen=True)
class Job:
    """A job of one flow run: the facts that all its log lines carry, and how long it and its phases take."""

    name: str
    facts: Mapping[str, Any]
    phases_ms: dict[str, int] = field(default_factory=dict)
    began: float = field(default_factory=time.monotonic)

    def about(self, **facts: Any) -> Job:
        """The same job with more facts, or with better ones."""
        return replace(self, facts={**self.facts, **facts})

    @property
    def duration_ms(self) -> int:
        """Whole milliseconds since the job began."""
        return _milliseconds_since(self.began)

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Add the block's milliseconds to a phase, unless the block fails."""
        began = time.monotonic()
        yield
        self.phases_ms[name] = self.phases_ms.get(name, 0) + _milliseconds_since(began)

    def started(self, **facts: Any) -> None:
        """Report that the work begins."""
        report(f"{self.name} started", **self.facts, **facts, status="started")

    def completed(self, **facts: Any) -> None:
        """Report that the work is done."""
        report(f"{self.name} completed", **self.facts, status="completed", **facts)

    def failed(self, **facts: Any) -> None:
        """Report that the work failed."""
        report(f"{self.name} failed", level=logging.ERROR, **self.facts, status="failed", **facts)


def _milliseconds_since(began: float) -> int:
    return round((time.monotonic() - began) * 1000)
