"""The options of a ledger task, and when it is retried."""

from __future__ import annotations

from typing import Any

from prefect import Task
from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.objects import State, TaskRun
from prefect.tasks import exponential_backoff

from ledger_db.errors import is_transient


def is_worth_retrying(task: Task[..., Any], task_run: TaskRun, state: State[Any]) -> bool:  # noqa: ARG001
    """Whether the task failed with what ``ledger_db`` calls transient. Drift or broken SQL is not retried.

    Not a coroutine: Prefect 3.8 does not await this function.
    """
    try:
        state.result()
    except Exception as error:
        return is_transient(error)
    return False


#: Options of every ledger task. Nothing is cached or persisted: the database knows what is done.
LEDGER_TASK: dict[str, Any] = {
    "retries": 4,
    "retry_delay_seconds": exponential_backoff(backoff_factor=1),
    "retry_jitter_factor": 0.5,
    "retry_condition_fn": is_worth_retrying,
    "cache_policy": NO_CACHE,
    "persist_result": False,
}
