"""The options that the flows share, and the parameters that default to a setting."""

from __future__ import annotations

from typing import Annotated, Any

from prefect.task_runners import ThreadPoolTaskRunner
from pydantic import Field

from ledger_db.errors import ConfigurationError
from ledger_db.settings import get_settings

#: How many balances one database transaction handles. None: LEDGER_BATCH_SIZE.
BatchSize = Annotated[int, Field(ge=1, le=1_000_000)] | None


class LedgerTaskRunner(ThreadPoolTaskRunner[Any]):
    """A thread pool of LEDGER_WORKERS threads. The setting is read when a flow run starts, not at import."""

    def duplicate(self) -> LedgerTaskRunner:
        """The pool of one flow run: Prefect asks for one each time a run starts."""
        return LedgerTaskRunner(max_workers=_workers())


def _workers() -> int:
    try:
        return get_settings().workers
    except ConfigurationError:  # the flow's first step reports it
        return 1


#: Options of every flow over the ledger. No result is persisted: the database knows what is done.
LEDGER_FLOW: dict[str, Any] = {"task_runner": LedgerTaskRunner(), "persist_result": False}

#: Options of a flow that no default of the deployment's environment retries: end-of-day, which does have retries,
#: calls it again, and a person may retry it.
UNRETRIED_FLOW: dict[str, Any] = LEDGER_FLOW | {"retries": 0}


def batch_size_or_setting(batch_size: int | None) -> int:
    """The batch size that was given, or LEDGER_BATCH_SIZE.

    Raises:
        ConfigurationError: a setting is wrong.
    """
    return batch_size or get_settings().batch_size
