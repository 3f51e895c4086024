"""Jobs that run now: what becomes of a flow run's end, and the progress that is shown meanwhile."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import date
from typing import Any

import pytest
from prefect.states import Completed, Failed
from sqlalchemy.exc import DBAPIError

from deployments.jobs import JobFailed, completed, showing_progress
from flows.parts import progress
from flows.parts.outcomes import AT_WORK, NOTHING_TO_DO
from flows.parts.progress import JobEvent
from ledger_db.errors import ConfigurationError, Hint, LedgerError, RunAtWork, UnknownRun

FACTS: dict[str, Any] = {
    "run_id": 3, "business_date": date(2026, 1, 5), "kind": "close", "total_snapshots": 1234, "duration_ms": 1500,
    "snapshots_per_second": 823, "checksum": "0123456789abcdef",
}  # fmt: skip


@pytest.mark.parametrize("error", [UnknownRun("there is no run 9", hint=Hint.list_runs), ConfigurationError("no zone")])
def test_error_of_the_ledger_is_raised_as_it_is(error: LedgerError) -> None:
    with pytest.raises(type(error)) as caught:
        completed(Failed(message="in the words of the flow", data=error))
    assert caught.value is error


@pytest.mark.parametrize(
    ("state", "said"),
    [
        (Failed(message="2026-01-05 is not closed"), "2026-01-05 is not closed"),
        (Failed(message="stopped", data=DBAPIError("SELECT 1", {}, Exception("canceled\nby hand"))), "canceled"),
    ],
)
def test_any_other_failure_is_one_line(state: Any, said: str) -> None:
    with pytest.raises(JobFailed) as caught:
        completed(state)
    assert (str(caught.value), caught.value.exit_code) == (said, 1)


def test_run_without_work_is_a_reason_and_one_that_another_process_does_is_refused() -> None:
    assert completed(Completed(name=NOTHING_TO_DO, message="certified already")) == "certified already"
    with pytest.raises(RunAtWork, match="another process"):
        completed(Completed(name=AT_WORK, message="another process is at work"))


def test_progress_is_a_line_for_each_completed_date(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    watchers: list[Callable[[JobEvent], None]] = []

    @contextmanager
    def watching(show: Callable[[JobEvent], None]) -> Iterator[None]:
        watchers.append(show)
        yield

    monkeypatch.setattr(progress, "watching", watching)
    updates: list[str] = []
    with showing_progress(updates.append) as facts_by_run:
        for event in (
            JobEvent("balance_snapshots", "started", FACTS),
            JobEvent("balance_snapshots", "completed", FACTS),
            JobEvent("balance_snapshots", "failed", {"business_date": None, "kind": "close"}),
            JobEvent("end_of_day", "completed", {"dates": []}),
        ):
            watchers[0](event)
    assert updates == ["2026-01-05 close: at work"]
    assert capsys.readouterr().err == (
        "2026-01-05 close: 1,234 snapshots in 1.5 s, 823 a second, checksum 0123456789ab\n"
    )
    assert facts_by_run == {3: FACTS}
