"""The flow that reconstructs balances, on a real Prefect server and a real ledger, with people who decide."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from datetime import timedelta
from typing import Any
from uuid import UUID

import pytest
from prefect.client.orchestration import get_client
from prefect.client.schemas.objects import FlowRun, State, StateDetails
from prefect.exceptions import Pause
from prefect.flow_engine import run_flow
from prefect.flow_runs import resume_flow_run
from prefect.states import AwaitingRetry, Cancelled

from flows import reports
from flows.parts import batches
from flows.reconstruct_balances import reconstruct_balances
from ledger_db.correction import corrections
from ledger_db.correction.driver import ReconstructionReport
from ledger_db.settings import get_settings
from tasks import correction as correcting
from tests.testing.books import Books
from tests.testing.flow_runs import Heard, artifact, listening, name_of
from tests.testing.reconstructions import approve, begin, correct, log, propose, tamper
from tests.testing.verifications import verify

pytestmark = pytest.mark.usefixtures("prefect_api_url")
REASON = "the statement says so"


@pytest.fixture
def heard() -> Iterator[Heard]:
    with listening() as records:
        yield records


@pytest.fixture(autouse=True)
def quick_retries(monkeypatch: pytest.MonkeyPatch) -> None:
    for each in (correcting.recalculate_balances, correcting.correct_balances):
        monkeypatch.setattr(each, "retry_delay_seconds", [0.0])
        monkeypatch.setattr(each, "retry_jitter_factor", None)


@pytest.fixture
def drifted(books: Books) -> Books:
    """Ten balances, a closed day, and two stored rows that were changed by hand."""
    rows = [f"2025-01-31 09:00  @world  w{n}  {n}.00 USD" for n in range(1, 10)]
    books.post("\n".join(["recorded  source  destination  amount", *rows]))
    books.close_day("2025-01-31")
    for name, by in (("w3", 50), ("w7", -7000)):
        tamper(books, name, "credit_balance", by)
        tamper(books, name, "balance", by)
    return books


@pytest.fixture
def deployment_id() -> UUID:
    return reconstruct_balances.to_deployment("test").apply()  # type: ignore[return-value, union-attr]


def reconstruct(**parameters: Any) -> State[Any]:
    return reconstruct_balances(return_state=True, **parameters)


def start(deployment_id: UUID, **parameters: Any) -> FlowRun:
    """A run of the deployment, as the form starts one; it is run here as its worker would."""
    with get_client(sync_client=True) as client:
        created = client.create_flow_run_from_deployment(deployment_id, parameters=parameters)
    return again(created)


def again(flow_run: FlowRun) -> FlowRun:
    """Let the worker take the run up, once more if it was resumed, and return it as it is then."""
    with get_client(sync_client=True) as client:
        flow_run = client.read_flow_run(flow_run.id)
        with suppress(Pause):  # the way out of a suspended run
            run_flow(reconstruct_balances, flow_run=flow_run, parameters=flow_run.parameters, return_type="state")
        return client.read_flow_run(flow_run.id)


def decide(flow_run: FlowRun, decision: str, by: str, remark: str = "") -> FlowRun:
    """Send the form of a suspended run, as the Resume button does, and let the worker take it up."""
    resume_flow_run(flow_run.id, run_input={"decision": decision, "decided_by": by, "remark": remark})
    return again(flow_run)


def retry(flow_run: FlowRun) -> None:
    """Press Retry."""
    with get_client(sync_client=True) as client:
        client.set_flow_run_state(flow_run.id, AwaitingRetry(), force=True)


def state_of(flow_run: FlowRun) -> str:
    assert flow_run.state is not None
    return str(flow_run.state.name)


def wrong(books: Books) -> list[str]:
    return [str(finding.cause) for finding in verify(books, "from-genesis").findings]


# Reports --------------------------------------------------------------------------------------------------------------


def test_report_says_what_was_and_what_is_and_changes_nothing(drifted: Books, heard: Heard) -> None:
    rows = drifted.stored_rows()
    state = reconstruct(balance_ids=["bln_w3", "bln_w7", "bln_w1"])
    assert state.is_completed()
    assert state.message == "reconstruction 1: 1 right, 2 to correct"
    assert name_of(state) == "reconstruct-balances-given-report"
    total, worst, *others = artifact("reconstruction-given", state)
    assert list(total) == list(worst), "the page shows the columns of the first row"
    assert (total["balance"], total["gross difference"]) == ("all 2", "7050")
    assert (worst["balance"], worst["was"], worst["is"]) == ("bln_w7", "-6300", "700")
    assert (worst["verdict"], worst["cause"]) == ("correct", "tampered_stored_row")
    assert [row["verdict"] for row in others] == ["correct", "agrees"]
    started, completed = heard.job_lines("reconstruct_balances")
    assert (started["status"], completed["status"], completed["correct"]) == ("started", "completed", 2)
    assert drifted.stored_rows() == rows


def test_discrepancies_are_what_is_reconstructed_when_they_are_selected(drifted: Books) -> None:
    verify(drifted, "since-close")
    result = reconstruct(select="discrepancies").result()
    assert isinstance(result, ReconstructionReport)
    assert {each.balance_id for each in result.results} == {"bln_w3", "bln_w7"}


def test_nothing_selected_is_nothing_to_do(books: Books) -> None:
    for select, said in (
        ("requested", "no balance requests a reconstruction in its meta_data: there is nothing to reconstruct"),
        ("discrepancies", "no balance has an open discrepancy: there is nothing to reconstruct"),
    ):
        state = reconstruct(select=select, mode="apply", reason="a schedule")
        assert (state.name, state.message) == ("NothingToDo", said)
    assert books.rows("SELECT count(*) FROM ledger_eod.reconstructions") == [(0,)]


def test_bad_input_is_one_line_and_a_failed_run(drifted: Books, heard: Heard) -> None:
    for parameters, said in (
        ({}, "no balance is given"),
        ({"balance_ids": ["bln_none"]}, "there is no balance bln_none"),
        ({"balance_ids": ["bln_w3"], "mode": "apply"}, "a correction is evidence: it needs a reason"),
        ({"balance_ids": ["bln_w3"], "select": "requested"}, "choose one of the two"),
    ):
        state = reconstruct(**parameters)
        assert (state.is_failed(), state.name) == (True, "Refused")
        assert said in str(state.message)
    assert "Traceback" not in heard.text
    assert drifted.rows("SELECT count(*) FROM ledger_eod.reconstructions WHERE status = 'ended'") == [(0,)]


# Approval -------------------------------------------------------------------------------------------------------------


def test_below_the_limits_corrections_are_made_at_once(drifted: Books, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LEDGER_APPROVAL_LIMITS", '{"USD": 7050}')
    get_settings.cache_clear()
    state = reconstruct(balance_ids=["bln_w3", "bln_w7"], mode="apply", reason=REASON, proposed_by="Ada")
    assert state.message == "reconstruction 1: 2 corrected"
    assert {(line.balance_id, line.approved_by) for line in log(drifted)} == {("bln_w3", None), ("bln_w7", None)}
    assert wrong(drifted) == []


def test_without_a_deployment_the_run_says_what_it_needs_and_changes_nothing(drifted: Books) -> None:
    rows = drifted.stored_rows()
    state = reconstruct(balance_ids=["bln_w3"], mode="apply", reason=REASON, proposed_by="Ada")
    assert (state.name, state.is_completed()) == ("AwaitingApproval", True)
    assert "50 USD in all, the limit is 0" in str(state.message)
    assert drifted.stored_rows() == rows


def test_run_waits_for_a_decision_and_goes_on_with_it(drifted: Books, deployment_id: UUID, heard: Heard) -> None:
    run = start(deployment_id, balance_ids=["bln_w3", "bln_w7"], mode="apply", reason=REASON, proposed_by="Ada")
    assert state_of(run) == "Suspended"
    assert log(drifted) == []
    waiting = [line for line in heard.job_lines("reconstruct_balances") if line["status"] == "awaiting_approval"]
    assert [line["reasons"] for line in waiting] == [["7050 USD in all, the limit is 0 (minor units)"]]

    run = decide(run, "approve", "Grace", "seen the bank's statement")

    assert (state_of(run), run.state and run.state.message) == ("Completed", "reconstruction 2: 2 corrected")
    for line in log(drifted):
        assert (line.proposed_by, line.approved_by, line.reason) == ("Ada", "Grace", REASON)
        assert line.flow_run_id == str(run.id)
    assert drifted.rows("SELECT decision::text, decided_by, channel, remark FROM ledger_eod.approvals") == [
        ("approved", "Grace", "form", "seen the bank's statement")
    ]
    assert len([line for line in heard.job_lines("reconstruct_balances") if line["status"] == "awaiting_approval"]) == 1
    assert wrong(drifted) == []


def test_proposer_is_asked_for_somebody_else(drifted: Books, deployment_id: UUID) -> None:
    run = start(deployment_id, balance_ids=["bln_w3"], mode="apply", reason=REASON, proposed_by="Ada")
    for spelled in ("ada", "\uff21da ", "A\u200bda"):  # case, a wide letter, a space of no width
        run = decide(run, "approve", spelled)
        assert state_of(run) == "Suspended"
    assert log(drifted) == []
    run = decide(run, "approve", "Grace")
    assert state_of(run) == "Completed"
    assert [line.approved_by for line in log(drifted)] == ["Grace"]


def test_form_shows_every_amount_that_would_change_and_words_as_words(drifted: Books) -> None:
    tamper(drifted, "w3", "inflight_debit_balance", 7)
    state = reconstruct(balance_ids=["bln_w3"], mode="apply", reason="see |\n# [this](x)", proposed_by="Ada_B")
    shown = reports.proposal_markdown(state.result().report)
    assert "by **57 USD** gross" in shown
    assert (
        "`bln_w3` USD, tampered_stored_row: balance **350 → 300**, credit **350 → 300**, inflight debit **7 → 0**"
        in shown
    )
    assert "Proposed by **Ada\\_B**: see \\| \\# \\[this\\]\\(x\\)" in shown


def test_run_that_nobody_decided_in_time_asks_again_when_it_is_retried(
    drifted: Books, deployment_id: UUID, heard: Heard
) -> None:
    run = start(deployment_id, balance_ids=["bln_w3"], mode="apply", reason=REASON, proposed_by="Ada")
    retry(run)
    run = again(run)
    assert state_of(run) == "Suspended"
    assert "Traceback" not in heard.text
    run = decide(run, "approve", "Grace")
    assert (state_of(run), [line.approved_by for line in log(drifted)]) == ("Completed", ["Grace"])


def test_answered_form_is_good_for_one_decision(drifted: Books, deployment_id: UUID) -> None:
    run = start(deployment_id, balance_ids=["bln_w3"], mode="apply", reason=REASON, proposed_by="Ada")
    decide(run, "approve", "Grace")
    tamper(drifted, "w3", "credit_balance", 50)
    tamper(drifted, "w3", "balance", 50)
    retry(run)
    assert state_of(again(run)) == "Suspended", "the same figures, and the same run"
    assert len(log(drifted)) == 1


def test_rejected_corrections_are_not_made(drifted: Books, deployment_id: UUID) -> None:
    run = start(deployment_id, balance_ids=["bln_w3"], mode="apply", reason=REASON, proposed_by="Ada")
    run = decide(run, "reject", "Grace", "ask the bank first")
    assert state_of(run) == "Rejected"
    assert run.state is not None
    assert "rejected by Grace: ask the bank first" in str(run.state.message)
    assert log(drifted) == []
    assert drifted.rows("SELECT status::text FROM ledger_eod.reconstructions ORDER BY 1") == [
        ("rejected",), ("superseded",),
    ]  # fmt: skip


def test_approval_of_figures_that_changed_does_not_count(drifted: Books, deployment_id: UUID) -> None:
    run = start(deployment_id, balance_ids=["bln_w3"], mode="apply", reason=REASON, proposed_by="Ada")
    tamper(drifted, "w3", "credit_balance", 1)
    run = decide(run, "approve", "Grace")
    assert state_of(run) == "Suspended", "it asks again, about the figures as they are"
    assert log(drifted) == []
    run = decide(run, "approve", "Grace")
    assert state_of(run) == "Completed"
    assert [line.difference for line in log(drifted)] == [-50]
    assert wrong(drifted) == ["tampered_stored_row"]  # the other balance


def test_approval_that_comes_too_late_corrects_nothing_twice(drifted: Books, deployment_id: UUID) -> None:
    run = start(deployment_id, balance_ids=["bln_w3"], mode="apply", reason=REASON, proposed_by="Ada")
    begin(drifted, proposal := propose(drifted, "w3"))
    assert correct(drifted, proposal, "w3") == "corrected"
    run = decide(run, "approve", "Grace")
    assert run.state is not None
    assert (state_of(run), "1 right" in str(run.state.message)) == ("Completed", True)
    assert len(log(drifted)) == 1


def test_same_figures_are_asked_about_once(drifted: Books, deployment_id: UUID) -> None:
    parameters = {"balance_ids": ["bln_w3"], "mode": "apply", "reason": REASON, "proposed_by": "Ada"}
    first = start(deployment_id, **parameters)
    second = start(deployment_id, **parameters)
    assert [state_of(run) for run in (first, second)] == ["Suspended", "AwaitingApproval"]
    assert second.state is not None
    assert f"the flow run {first.name} asks for it already" in str(second.state.message)
    with get_client(sync_client=True) as client:
        client.set_flow_run_state(first.id, Cancelled(), force=True)
    assert state_of(start(deployment_id, **parameters)) == "Suspended", "nobody is asked any more by the first"


def test_approval_counts_for_as_long_as_it_is_set(drifted: Books, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LEDGER_APPROVAL_HOURS", "5")
    get_settings.cache_clear()
    asked = {"balance_ids": ["bln_w3"], "mode": "apply", "reason": REASON, "proposed_by": "Ada"}
    proposal = reconstruct(**asked).result().report.reconstruction
    approve(drifted, proposal)
    drifted.execute("ALTER TABLE ledger_eod.approvals DISABLE TRIGGER refuse_edit")
    drifted.execute("UPDATE ledger_eod.approvals SET decided_at = decided_at - interval '5 hours'")
    assert reconstruct(**asked).name == "AwaitingApproval"
    assert log(drifted) == []
    approve(drifted, proposal)
    assert reconstruct(**asked).message == "reconstruction 3: 1 corrected"
    assert reconstruct(**asked).message == "reconstruction 4: 1 right"
    assert len(log(drifted)) == 1


def test_form_that_nobody_answers_in_time_is_closed(drifted: Books, deployment_id: UUID) -> None:
    run = start(deployment_id, balance_ids=["bln_w3"], mode="apply", reason=REASON, proposed_by="Ada")
    state = run.state
    assert state is not None and state.state_details.pause_timeout is not None
    closes_at = state.state_details.pause_timeout
    assert state.timestamp + timedelta(hours=23) < closes_at <= state.timestamp + timedelta(hours=24)
    with get_client(sync_client=True) as client:  # 24 hours later
        late = StateDetails(**state.state_details.model_dump() | {"pause_timeout": state.timestamp})
        client.set_flow_run_state(run.id, state.model_copy(update={"state_details": late}), force=True)
    with suppress(Exception):  # the refusal that the Resume button shows
        resume_flow_run(run.id, run_input={"decision": "approve", "decided_by": "Grace", "remark": ""})
    run = again(run)
    assert state_of(run) != "Completed"
    assert log(drifted) == []


def test_approval_is_not_used_for_the_same_difference_next_month(drifted: Books, deployment_id: UUID) -> None:
    run = start(deployment_id, balance_ids=["bln_w3"], mode="apply", reason=REASON, proposed_by="Ada")
    decide(run, "approve", "Grace")
    tamper(drifted, "w3", "credit_balance", 50)
    tamper(drifted, "w3", "balance", 50)
    run = start(deployment_id, balance_ids=["bln_w3"], mode="apply", reason=REASON, proposed_by="Ada")
    assert state_of(run) == "Suspended"


# Interrupted ----------------------------------------------------------------------------------------------------------


def test_interrupted_run_goes_on_with_its_approval(
    drifted: Books, deployment_id: UUID, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(batches, "TASK_BUDGET", 1)
    real = corrections.correct_balance

    def dies(connection: Any, reconstruction_id: int, balance_id: str) -> Any:
        if balance_id == "bln_w3":
            raise OSError("the machine is gone")
        return real(connection, reconstruction_id, balance_id)

    run = start(deployment_id, balance_ids=["bln_w3", "bln_w7"], mode="apply", reason=REASON, proposed_by="Ada")
    monkeypatch.setattr(corrections, "correct_balance", dies)
    run = decide(run, "approve", "Grace")
    assert state_of(run) == "Failed"
    assert [line.balance_id for line in log(drifted)] == ["bln_w7"]

    monkeypatch.setattr(corrections, "correct_balance", real)
    retry(run)
    run = again(run)
    assert state_of(run) == "Completed"
    assert {(line.balance_id, line.approved_by) for line in log(drifted)} == {("bln_w3", "Grace"), ("bln_w7", "Grace")}
    assert wrong(drifted) == []


def test_more_balances_than_tasks_are_grouped(drifted: Books, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batches, "TASK_BUDGET", 3)
    result = reconstruct(balance_ids=[f"bln_w{n}" for n in range(1, 10)]).result()
    assert len(result.results) == 9
