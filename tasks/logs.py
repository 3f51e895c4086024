"""The form of the jobs' log lines: a message and one JSON object, and no traceback for a fact of the ledger."""

from __future__ import annotations

import json
import logging
from datetime import UTC, datetime
from typing import Any

from sqlalchemy.exc import DBAPIError

from ledger_db.errors import LedgerError

RUN_LOGGERS = ("prefect.flow_runs", "prefect.task_runs", "prefect.task_engine", "prefect.flow_engine")


def job_line(message: str, **fields: Any) -> str:
    """A log line: what happened, then the job's fields as one JSON object, stamped in UTC."""
    stamped = fields | {"timestamp": datetime.now(UTC).isoformat(timespec="milliseconds")}
    return f"{message} {json.dumps(stamped, default=str)}"


class _LedgerTracebackFilter(logging.Filter):
    """Drops tracebacks of ledger and database errors: their message states the fact, and the code is not at fault."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Keep the record; drop its traceback when it is of a ledger or database error."""
        if record.exc_info and isinstance(record.exc_info[1], LedgerError | DBAPIError):
            record.exc_info = None
        return True


def hide_ledger_tracebacks() -> None:
    """Install the filter on the orchestrator's run loggers; a second call changes nothing."""
    for name in RUN_LOGGERS:
        logger = logging.getLogger(name)
        if not any(isinstance(known, _LedgerTracebackFilter) for known in logger.filters):
            logger.addFilter(_LedgerTracebackFilter())
