"""Ranges of balances over the workers of one flow run: within the task budget, with progress, every failure in hand."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from math import ceil
from typing import Any, TypeVar, cast
from uuid import UUID

from prefect import Task, unmapped
from prefect.artifacts import create_progress_artifact, update_progress_artifact
from prefect.futures import as_completed, wait

from ledger_db.errors import ConfigurationError
from ledger_db.settings import get_settings

TASK_BUDGET = 100  # task runs a flow run maps at most; above it a task does several batches, one transaction each
PROGRESS_SECONDS = 1.0

Batch = TypeVar("Batch")
Result = TypeVar("Result")


def workers() -> int:
    """How many tasks a flow runs at the same time."""
    try:
        return get_settings().workers
    except ConfigurationError:  # the flow's first step says so in a clear line
        return 1


def map_ranges(
    work: Task[[int, list[Batch]], Result], subject_id: int, ranges: list[Batch], *, progress_key: str, description: str
) -> tuple[list[Result], list[BaseException]]:
    """Map the batches of one subject over the workers and show progress; returns results and failures, both in order.

    Waits for all of them: what one batch fails with does not keep the others from being done.
    """
    groups = grouped(ranges)
    progress = cast(UUID, create_progress_artifact(progress=0.0, key=progress_key, description=description))
    futures: list[Any] = list(work.map(unmapped(subject_id), groups))
    shown = time.monotonic()
    for finished, _ in enumerate(as_completed(futures), start=1):
        if time.monotonic() - shown >= PROGRESS_SECONDS:
            shown = time.monotonic()
            update_progress_artifact(artifact_id=progress, progress=100.0 * finished / len(groups))
    wait(futures)
    completed = [future for future in futures if future.state.is_completed()]
    failed = [future for future in futures if not future.state.is_completed()]
    if not failed:
        update_progress_artifact(artifact_id=progress, progress=100.0)
    return (
        [future.result() for future in completed],
        [cast(BaseException, future.result(raise_on_failure=False)) for future in failed],
    )


def grouped(ranges: list[Batch]) -> list[list[Batch]]:
    """The batches in order, as evenly as the task budget allows."""
    size = ceil(len(ranges) / TASK_BUDGET)
    return [ranges[start : start + size] for start in range(0, len(ranges), size)]


@contextmanager
def timed(phases_ms: dict[str, int], phase: str) -> Iterator[None]:
    """Add the block's milliseconds to its phase."""
    started = time.monotonic()
    yield
    phases_ms[phase] = phases_ms.get(phase, 0) + milliseconds_since(started)


def milliseconds_since(started: float) -> int:
    """Whole milliseconds since a reading of the monotonic clock."""
    return round((time.monotonic() - started) * 1000)
