"""Map batches over the workers of one flow run: within the task budget, with progress, collecting every failure."""

from __future__ import annotations

import time
from dataclasses import dataclass
from math import ceil
from typing import Any, Generic, TypeVar, cast
from uuid import UUID

from prefect import Task, unmapped
from prefect.artifacts import create_progress_artifact, update_progress_artifact
from prefect.futures import as_completed, wait

from ledger_db.errors import BatchFailed, LedgerError, first_line, is_transient

TASK_BUDGET = 100  # task runs a flow run maps at most; above it a task does several batches, one transaction each
PROGRESS_SECONDS = 1.0

Batch = TypeVar("Batch")
Result = TypeVar("Result")


@dataclass(frozen=True)
class Mapped(Generic[Result]):
    """The results of the tasks that completed and the exceptions of those that failed, both in order."""

    results: list[Result]
    failures: list[BaseException]

    def require_all(self, consequence: str, *, written: int = 0, reasons: int = 1) -> None:
        """Fail when a task failed; the message has the first few ``reasons``.

        Raises:
            BatchFailed: transient when another try may do all that failed.
        """
        if self.failures:
            named = self.failures[:reasons]
            raise BatchFailed(
                f"{len(self.failures)} of {len(self.results) + len(self.failures)} tasks failed, {consequence}. "
                f"{'; '.join(first_line(failure) for failure in named)}",
                transient=all(is_transient(failure) for failure in self.failures),
                written=written,
                hint=next((failure.hint for failure in named if isinstance(failure, LedgerError)), None),
            )


def map_batches(
    work: Task[[int, list[Batch]], Result],
    subject_id: int,
    batches: list[Batch],
    *,
    progress_key: str,
    description: str,
) -> Mapped[Result]:
    """Map the batches of one subject over the workers, show progress, and wait for all of them.

    A batch that fails does not keep the others from being done.
    """
    groups = grouped(batches)
    progress = cast(UUID, create_progress_artifact(progress=0.0, key=progress_key, description=description))
    futures: list[Any] = list(work.map(unmapped(subject_id), groups))
    shown = time.monotonic()
    for finished, _ in enumerate(as_completed(futures), start=1):
        if time.monotonic() - shown >= PROGRESS_SECONDS:
            shown = time.monotonic()
            update_progress_artifact(
                artifact_id=progress,
                progress=100.0 * finished / len(groups),
                description=f"{description}: {finished} of {len(groups)} tasks done",
            )
    wait(futures)
    completed = [future for future in futures if future.state.is_completed()]
    failed = [future for future in futures if not future.state.is_completed()]
    if not failed:
        update_progress_artifact(artifact_id=progress, progress=100.0)
    return Mapped(
        [future.result() for future in completed],
        [cast(BaseException, future.result(raise_on_failure=False)) for future in failed],
    )


def grouped(batches: list[Batch]) -> list[list[Batch]]:
    """The batches in order, in groups as even as the task budget allows."""
    size = ceil(len(batches) / TASK_BUDGET)
    return [batches[start : start + size] for start in range(0, len(batches), size)]
