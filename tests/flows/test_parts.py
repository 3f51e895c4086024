"""What the flows share: hints in words, progress as events, the settings they read, and how a run fails for good."""

from __future__ import annotations

import re
import threading
from datetime import date
from typing import Any

import pytest
from prefect import flow
from prefect.client.schemas.objects import State
from prefect.context import FlowRunContext

from flows import reports
from flows.parts import approval, outcomes, progress
from flows.parts.hints import WORDS, with_hint
from flows.parts.options import LEDGER_FLOW
from flows.parts.progress import JobEvent, watching
from flows.snapshot_balances import snapshot_balances
from ledger_db.close import snapshots
from ledger_db.errors import ApprovalRefused, BatchFailed, Hint, OutOfOrder
from ledger_db.settings import get_settings
from tests.testing import PROJECT
from tests.testing.books import Books
from tests.testing.flow_runs import Heard, listening


def configure(monkeypatch: pytest.MonkeyPatch, **settings: str) -> None:
    for name, value in settings.items():
        monkeypatch.setenv(name, value)
    get_settings.cache_clear()


@pytest.fixture
def three(books: Books) -> Books:
    """Three balances."""
    books.post("""
        recorded          source  destination  amount
        2025-01-31 09:00  @world  w1           1.00 USD
        2025-01-31 09:00  @world  w2           2.00 USD
    """)
    return books


# Hints ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("hint", list(Hint))
def test_every_hint_has_words_for_the_ui(hint: Hint) -> None:
    assert WORDS[hint]
    assert with_hint("a fact", hint) == f"a fact; {WORDS[hint]}"


def test_without_a_hint_a_message_is_the_fact() -> None:
    assert with_hint("a fact", None) == "a fact"


@pytest.mark.parametrize("package", ["flows", "tasks"])
def test_no_command_is_named(package: str) -> None:
    for module in (PROJECT / package).rglob("*.py"):
        assert not re.findall(r"ledger-eod [a-z]|(?<!\S)--[a-z]", module.read_text()), module


# Failing for good -----------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("prefect_api_url")
def test_a_fact_fails_for_good_with_its_hint_in_words_and_the_exception_as_data() -> None:
    fact = OutOfOrder("there is a gap", hint=Hint.close_missing_dates)

    @flow(retries=2, retry_delay_seconds=300, persist_result=False)
    def fails() -> State[Any]:
        return outcomes.stopped_by(fact)

    state: Any = fails(return_state=True)
    assert (state.is_failed(), state.message) == (True, f"there is a gap; {WORDS[Hint.close_missing_dates]}")
    assert state.result(raise_on_failure=False) is fact
    with pytest.raises(OutOfOrder, match=r"^there is a gap$"):
        state.result()

    with pytest.raises(BatchFailed, match=r"^2025-01-31 is not closed: there is a gap$") as caught:
        outcomes.result_of(state, int, "2025-01-31 is not closed")
    assert (caught.value.hint, caught.value.transient) == (Hint.close_missing_dates, False)


@pytest.mark.parametrize("error", [BatchFailed("busy", transient=True), OSError("the machine is gone")])
def test_what_may_pass_or_is_no_fact_of_the_ledger_is_raised(error: Exception) -> None:
    with pytest.raises(type(error)) as caught:
        outcomes.stopped_by(error)
    assert caught.value is error


# Options --------------------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("prefect_api_url")
def test_a_changed_worker_count_is_used_by_a_flow_imported_before(
    three: Books, monkeypatch: pytest.MonkeyPatch
) -> None:
    threads: list[int] = []
    real = snapshots.write_snapshot_batch

    def write(*arguments: Any) -> int:
        threads.append(threading.get_ident())
        together.wait(timeout=30)
        return real(*arguments)

    monkeypatch.setattr(snapshots, "write_snapshot_batch", write)
    for workers, day in ((1, 30), (3, 31)):  # one at a time, then three that wait for each other
        together = threading.Barrier(workers)
        threads.clear()
        configure(monkeypatch, LEDGER_WORKERS=str(workers), LEDGER_BATCH_SIZE="1")
        result: Any = snapshot_balances(date(2025, 1, day))
        assert (result.written, len(threads), len(set(threads))) == (3, 3, workers)


@pytest.mark.usefixtures("prefect_api_url")
def test_a_wrong_setting_is_left_to_the_flow_to_report(monkeypatch: pytest.MonkeyPatch) -> None:
    @flow(**LEDGER_FLOW)
    def workers() -> int:
        context: Any = FlowRunContext.get()
        return int(context.task_runner._max_workers)

    configure(monkeypatch, LEDGER_WORKERS="7")
    assert workers() == 7
    configure(monkeypatch, LEDGER_WORKERS="many")
    assert workers() == 1


@pytest.mark.usefixtures("prefect_api_url")
def test_an_empty_batch_size_is_the_setting(three: Books, monkeypatch: pytest.MonkeyPatch) -> None:
    configure(monkeypatch, LEDGER_BATCH_SIZE="2")
    with listening() as heard:
        assert snapshot_balances(kind="interim", return_state=True).is_completed()
    assert [line["batch_size"] for line in heard.job_lines("balance_snapshots")] == [2, 2]


# Progress -------------------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("prefect_api_url")
def test_watchers_get_the_facts_of_the_log_lines_and_only_inside_their_block() -> None:
    @flow(persist_result=False)
    def job() -> None:
        progress.report("a job started", operation="job", status="started", run_id=7)

    seen: list[JobEvent] = []
    with listening() as heard:
        with watching(seen.append), watching(seen.append):
            job()
        job()
    assert seen == [JobEvent("job", "started", {"run_id": 7})] * 2
    assert logged(heard) == [{"message": "a job started", "operation": "job", "status": "started", "run_id": 7}] * 2


def logged(heard: Heard) -> list[dict[str, Any]]:
    return [{name: line[name] for name in line if name != "timestamp"} for line in heard.job_lines("job")]


@pytest.mark.usefixtures("prefect_api_url")
def test_a_flow_of_the_ledger_is_watched_with_its_subflows(three: Books) -> None:
    from flows.end_of_day import end_of_day

    seen: list[tuple[str, str]] = []
    with watching(lambda event: seen.append((event.operation, event.status))):
        end_of_day(first_close="only-last")
    assert seen == [
        ("balance_snapshots", "started"), ("balance_snapshots", "completed"), ("end_of_day", "completed"),
        ("verify_balances", "started"), ("verify_balances", "completed"),
    ]  # fmt: skip


# Approval -------------------------------------------------------------------------------------------------------------


def test_forms_that_come_back_answered_and_refused_are_not_sent_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []

    class Refused:
        decision, remark = "refused", "the proposer may not"

    class Proposal:
        name, figures_hash = "reconstruction 1", "0" * 64

    class Report:
        reconstruction = Proposal()

    class NoLog:
        def warning(self, *_: Any) -> None: ...

    class Tasks:
        count_decisions = staticmethod(lambda _: len(asked))
        decide = staticmethod(lambda *_: Refused())

    def suspend(_: Any, key: str) -> approval.Decision:
        asked.append(key)
        return approval.Decision.model_construct(decision="approve", decided_by="Ada")

    monkeypatch.setattr(approval, "correcting", Tasks)
    monkeypatch.setattr(approval, "_was_suspended", lambda _: True)
    monkeypatch.setattr(approval, "_suspend", suspend)
    monkeypatch.setattr(approval, "get_run_logger", NoLog)
    monkeypatch.setattr(reports, "proposal_markdown", lambda *_, **__: "")
    with pytest.raises(ApprovalRefused, match="10 decisions in a row were refused, the last one: the proposer may not"):
        approval._ask(Report(), "reconstruct_balances")  # type: ignore[arg-type]
    assert len(set(asked)) == approval.REFUSALS
