"""What a user sees of a flow run: its name, its state, its log lines, its artifacts."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import ArtifactFilter, ArtifactFilterFlowRunId, ArtifactFilterKey
from prefect.client.schemas.objects import State
from prefect.logging.configuration import setup_logging

from tests.testing.books import Books

LOGGERS = ("prefect.flow_runs", "prefect.task_runs")


class Heard(logging.Handler):
    """Every log line of the runs."""

    def __init__(self) -> None:
        super().__init__(level=logging.DEBUG)
        self.records: list[logging.LogRecord] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.records.append(record)

    @property
    def text(self) -> str:
        return "\n".join(logging.Formatter().format(record) for record in self.records)

    def job_lines(self, operation: str) -> list[dict[str, Any]]:
        """The JSON objects that the job itself logged, in order, under the message they came with."""
        found = []
        for record in self.records:
            message, brace, rest = record.getMessage().partition(" {")
            if brace and f'"operation": "{operation}"' in rest:
                found.append({"message": message} | json.loads("{" + rest))
        return found


@contextmanager
def listening() -> Iterator[Heard]:
    setup_logging()
    heard = Heard()
    for name in LOGGERS:
        logging.getLogger(name).addHandler(heard)
    try:
        yield heard
    finally:
        for name in LOGGERS:
            logging.getLogger(name).removeHandler(heard)


def name_of(state: State[Any]) -> str:
    """The name of the flow run that ended in a state."""
    assert state.state_details.flow_run_id is not None
    with get_client(sync_client=True) as client:
        return client.read_flow_run(state.state_details.flow_run_id).name


def artifact(key: str, state: State[Any]) -> Any:
    """What a flow run put under a key: a table's rows, or a progress."""
    assert state.state_details.flow_run_id is not None
    with get_client(sync_client=True) as client:
        (found,) = client.read_artifacts(
            artifact_filter=ArtifactFilter(
                key=ArtifactFilterKey(any_=[key]),
                flow_run_id=ArtifactFilterFlowRunId(any_=[state.state_details.flow_run_id]),
            )
        )
    return json.loads(found.data) if isinstance(found.data, str) else found.data


def artifact_keys(state: State[Any]) -> list[str]:
    """The keys under which a flow run put something."""
    assert state.state_details.flow_run_id is not None
    with get_client(sync_client=True) as client:
        found = client.read_artifacts(
            artifact_filter=ArtifactFilter(flow_run_id=ArtifactFilterFlowRunId(any_=[state.state_details.flow_run_id]))
        )
    return sorted(each.key for each in found if each.key is not None)


def on_each_row(books: Books, body: str) -> None:
    """A trigger before each snapshot row, for instance one that raises; ``attempts`` counts across rollbacks."""
    books.execute("DROP SEQUENCE IF EXISTS public.attempts")
    books.execute("CREATE SEQUENCE public.attempts")
    books.execute(
        f"CREATE OR REPLACE FUNCTION public.on_row() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN {body} "
        "RETURN NEW; END $$"
    )
    books.execute(
        "CREATE TRIGGER on_row BEFORE INSERT ON ledger_eod.balance_snapshots "
        "FOR EACH ROW EXECUTE FUNCTION public.on_row()"
    )


def leave_rows_alone(books: Books) -> None:
    books.execute("DROP TRIGGER on_row ON ledger_eod.balance_snapshots")


def attempts(books: Books) -> int:
    ((count, called),) = books.rows("SELECT last_value, is_called FROM public.attempts")
    return int(count) if called else 0
