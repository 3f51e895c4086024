"""Automations on a real Prefect server that looks every second: installed as declared, and doing what they say.

What takes 26 hours or ten minutes is installed with ten seconds, the least that Prefect waits for something missing.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from pprint import pformat
from typing import Any
from uuid import UUID

import pytest
import yaml
from prefect import Flow
from prefect.blocks.notifications import CustomWebhookNotificationBlock
from prefect.blocks.system import Secret
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.objects import FlowRun
from prefect.events.schemas.automations import AutomationCore
from prefect.flows import load_flow_from_entrypoint
from prefect.settings import PREFECT_API_URL, temporary_settings
from prefect.states import Failed
from prefect.utilities.callables import parameter_schema

from deployments.cli import run
from deployments.orchestrator.automations import LOG_DEPLOYMENT, REVIEW_DEPLOYMENT, WATCHED_FLOWS, declarations
from deployments.orchestrator.server import SERVER_SETTINGS, environment, local_server, prefect_folder
from deployments.orchestrator.serving import install_automations, prefect_yaml
from ledger_db.settings import Settings, get_settings
from tests.testing import PROJECT
from tests.testing.books import Books

NAMES = [declaration.name for declaration in declarations(Settings(_env_file=None))]
SHORT = timedelta(seconds=10)
LOADED_SECONDS = 6  # Prefect's server looks every five seconds whether it has loaded all automations
SHORT_SETTINGS = {
    "LEDGER_END_OF_DAY_EXPECTED_SECONDS": str(SHORT.seconds),
    "LEDGER_LATE_RUN_SECONDS": "10",
    "LEDGER_SILENT_RUN_SECONDS": "15",  # longer than a live flow of this night takes
}

THROWAWAY = """
import time
from prefect import flow

@flow(name="reconstruct-balances")
def reconstruct_balances(balance_ids: list[str] | None = None, select: str = "given", mode: str = "report",
                         reason: str = "", proposed_by: str = ""):
    time.sleep(600)
"""

A_NIGHT = """
from dataclasses import replace
from datetime import date
from flows.end_of_day import end_of_day
from flows.events import announce_verification
from flows.verify_balances import verify_balances

verified = verify_balances("from-genesis")  # nothing is wrong yet
input()  # somebody tampers with a balance
announce_verification(
    replace(verified.report.verification, scope="checksums", finding_count=1),
    summary="checksums: 1 discrepancies", totals="5 USD", largest="raw rows on 2025-01-31", causes={},
)
print(end_of_day(since=date(2025, 1, 31), until=date(2025, 1, 31), return_state=True).message)
verify_balances("since-close")
print(end_of_day(until=date(2025, 1, 31)))
"""


@dataclass(frozen=True)
class Server:
    """A Prefect server with the deployments that the automations start, and no worker."""

    client: SyncPrefectClient
    variables: dict[str, str]
    log_deployment: UUID
    review_deployment: UUID
    log: Path

    def stored(self) -> dict[str, dict[str, Any]]:
        """Every automation as the server stores it."""
        found = self.client.request("POST", "/automations/filter", json={}).json()
        return {automation["name"]: automation for automation in found}

    def runs_of(self, deployment_id: UUID) -> list[FlowRun]:
        return [run for run in self.client.read_flow_runs() if run.deployment_id == deployment_id]

    def notified(self) -> dict[str, list[FlowRun]]:
        """The notifications so far, by subject."""
        found: dict[str, list[FlowRun]] = {}
        for each in self.runs_of(self.log_deployment):
            found.setdefault(each.parameters["subject"], []).append(each)
        return found

    def logged_of(self, flow_run_id: UUID) -> list[str]:
        """What the server logged of a flow run, and its warnings: which triggers each event of it reached."""
        wanted = (str(flow_run_id), "WARNING", "ERROR", "Traceback", "Error")
        return [line for line in self.log.read_text().splitlines() if any(each in line for each in wanted)]

    def events(self, name: str) -> list[dict[str, Any]]:
        asked = {"filter": {"event": {"name": [name]}, "order": "ASC"}, "limit": 50}
        events: list[dict[str, Any]] = self.client.request("POST", "/events/filter", json=asked).json()["events"]
        return events

    def told_of(self, flow_run_id: UUID) -> list[tuple[str, ...]]:
        """Every event of a flow run and of automations: what, of which, when it occurred and when it was received."""
        asked = {"filter": {"order": "ASC"}, "limit": 50}
        events: list[dict[str, Any]] = []
        page = self.client.request("POST", "/events/filter", json=asked).json()
        while True:
            events += page["events"]
            if page["next_page"] is None:
                break
            page = self.client.request("GET", page["next_page"].partition("/api")[2]).json()
        return [
            (each["event"], each["resource"].get("prefect.resource.name", ""), each["occurred"], each["received"])
            for each in events
            if each["event"].startswith("prefect.automation.")
            or each["resource"]["prefect.resource.id"] == f"prefect.flow-run.{flow_run_id}"
        ]

    @contextmanager
    def executing(self, flow_run_id: UUID, folder: Path) -> Iterator[subprocess.Popen[bytes]]:
        """What a worker does for a flow run: a process of its own, which is killed at the end."""
        process = subprocess.Popen(
            [sys.executable, "-m", "prefect.engine"], cwd=folder, stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
            env=self.variables | {"PREFECT__FLOW_RUN_ID": str(flow_run_id), "PYTHONPATH": str(folder)},
        )  # fmt: skip
        try:
            yield process
        finally:
            process.kill()
            process.wait()


@pytest.fixture(scope="module")
def throwaway_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a flow that stands for the reconstruction."""
    folder = tmp_path_factory.mktemp("throwaway")
    (folder / "throwaway.py").write_text(THROWAWAY)
    return folder


@pytest.fixture(scope="module")
def _server(tmp_path_factory: pytest.TempPathFactory, throwaway_folder: Path) -> Iterator[Server]:
    settings = Settings(_env_file=None, data_folder=tmp_path_factory.mktemp("data"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(SERVER_SETTINGS, "PREFECT_SERVER_LOGGING_LEVEL", "INFO")
        patch.setenv("PREFECT_SERVER_EVENTS_PROACTIVE_GRANULARITY", "PT1S")
        patch.setenv("PREFECT_SERVER_SERVICES_LATE_RUNS_AFTER_SECONDS", "1")
        patch.setenv("PREFECT_SERVER_SERVICES_LATE_RUNS_LOOP_SECONDS", "1")
        with (
            local_server(settings) as api_url,
            temporary_settings({PREFECT_API_URL: api_url}),
            get_client(sync_client=True) as client,
        ):
            yield Server(
                client,
                environment(settings, api_url),
                _deploy(client, LOG_DEPLOYMENT, "flows/notify.py:notify", PROJECT),
                _deploy(client, REVIEW_DEPLOYMENT, "throwaway.py:reconstruct_balances", throwaway_folder),
                prefect_folder(settings) / "server.log",
            )


@pytest.fixture
def server(_server: Server, own_settings: None) -> Server:
    """The server without any automation, for a process with default settings."""
    for automation in _server.client.read_automations():
        _server.client.delete_automation(automation.id)
    return _server


def _deploy(client: SyncPrefectClient, name: str, entrypoint: str, folder: Path) -> UUID:
    flow: Flow[..., Any] = load_flow_from_entrypoint(f"{folder}/{entrypoint}")
    flow_name, _, deployment_name = name.partition("/")
    assert flow.name == flow_name
    return client.create_deployment(
        client.create_flow(flow), deployment_name, entrypoint=entrypoint, path=str(folder),
        parameter_openapi_schema=parameter_schema(flow).model_dump(), enforce_parameter_schema=True,
    )  # fmt: skip


def _install(capsys: pytest.CaptureFixture[str]) -> dict[str, str]:
    """What ``ledger-eod automations install`` says of each automation."""
    get_settings.cache_clear()
    assert run(["automations", "install"]) == 0
    lines = capsys.readouterr().out.splitlines()
    return dict(line.removeprefix("ledger-eod: ").split(": ", 1) for line in lines)


def _refusal(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str]:
    get_settings.cache_clear()
    code = run(arguments)
    captured = capsys.readouterr()
    assert captured.err.count("\n") == 1
    return code, captured.err.rstrip("\n")


def _eventually(
    condition: Callable[[], Any], seconds: float = 120, otherwise: Callable[[], Any] = lambda: "in vain"
) -> Any:
    deadline = time.monotonic() + seconds
    while not (found := condition()):
        if time.monotonic() >= deadline:
            pytest.fail(pformat(otherwise(), width=200))  # whole: an assertion's own text is cut
        time.sleep(0.2)
    return found


# Installing ---------------------------------------------------------------------------------------------------------


def test_a_second_install_changes_nothing(server: Server, capsys: pytest.CaptureFixture[str]) -> None:
    assert set(_install(capsys).values()) == {"created"}
    before = server.stored()
    assert list(before) == sorted(NAMES)
    assert set(_install(capsys).values()) == {"unchanged"}
    assert server.stored() == before  # ids and the instants of creation and update too
    assert run(["automations", "list", "--json"]) == 0
    listed = json.loads(capsys.readouterr().out)
    assert [each["name"] for each in listed] == NAMES
    assert {(each["state"], each["enabled"]) for each in listed} == {("installed", True)}


def test_only_what_differs_is_updated_and_what_is_switched_off_stays_off(
    server: Server, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    _install(capsys)
    before = server.stored()
    for name in ("ledger-eod: run is late", "ledger-eod: run failed"):
        server.client.pause_automation(UUID(before[name]["id"]))
    monkeypatch.setenv("LEDGER_LATE_RUN_SECONDS", "1200")
    said = _install(capsys)
    assert said == {
        "report on discrepancies": "unchanged",
        "discrepancies found": "unchanged",
        "approval awaited": "unchanged",
        "run is late": "updated; it is switched off and stays so",
        "run failed": "unchanged; it is switched off and stays so",
        "run is silent": "unchanged",
        "no end of day": "unchanged",
    }
    after = server.stored()
    assert {name: found["id"] for name, found in after.items()} == {n: f["id"] for n, f in before.items()}
    late = after["ledger-eod: run is late"]
    assert (late["enabled"], late["trigger"]["within"]) == (False, 1200)
    assert after["ledger-eod: run is silent"] == before["ledger-eod: run is silent"]
    assert run(["automations", "list"]) == 0
    assert "20 minutes" in capsys.readouterr().out


def test_two_installed_at_once_become_one_again(server: Server, capsys: pytest.CaptureFixture[str]) -> None:
    _install(capsys)
    (first, *_) = server.client.read_automations_by_name(NAMES[0])
    server.client.create_automation(AutomationCore.model_validate(first.model_dump()))
    assert _install(capsys)["report on discrepancies"] == "updated"
    assert len(server.client.read_automations_by_name(NAMES[0])) == 1
    assert set(_install(capsys).values()) == {"unchanged"}


def test_remove_leaves_other_peoples_automations(server: Server, capsys: pytest.CaptureFixture[str]) -> None:
    _install(capsys)
    (mine,) = server.client.read_automations_by_name(NAMES[0])
    server.client.create_automation(AutomationCore.model_validate(mine.model_dump() | {"name": "somebody's"}))
    assert run(["automations", "remove"]) == 0
    assert capsys.readouterr().out.splitlines() == [f"{name}: removed" for name in NAMES]
    assert list(server.stored()) == ["somebody's"]
    assert run(["automations", "remove"]) == 0
    assert capsys.readouterr().out == "none is installed\n"


def test_without_its_deployment_an_automation_waits_and_says_so(
    server: Server, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("deployments.orchestrator.automations.REVIEW_DEPLOYMENT", "reconstruct-balances/not-yet")
    assert run(["automations", "install"]) == 2
    captured = capsys.readouterr()
    assert captured.out.splitlines()[0].endswith("waits, there is no deployment reconstruct-balances/not-yet")
    assert captured.err == ("ledger-eod: not every automation is installed: run ledger-eod deploy, then this again\n")
    assert sorted(server.stored()) == sorted(NAMES[1:])


def test_doctor_says_whether_they_are_installed(
    server: Server, books: Books, capsys: pytest.CaptureFixture[str]
) -> None:
    def diagnosis() -> tuple[str, str]:
        assert run(["doctor", "--json"]) == 0
        found = {each["subject"]: each for each in json.loads(capsys.readouterr().out)}
        return found["automations"]["status"], found["automations"]["detail"]

    status, detail = diagnosis()
    assert status == "missing"
    assert "run is late: not installed" in detail
    _install(capsys)
    assert diagnosis() == ("ok", "7 installed")


def test_every_deployed_flow_is_watched_but_the_one_that_notifies() -> None:
    configured = yaml.safe_load(prefect_yaml().read_text())["deployments"]
    flows = {load_flow_from_entrypoint(deployment["entrypoint"]).name for deployment in configured}
    assert flows - {"notify"} <= set(WATCHED_FLOWS)


# Notifying ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("block", "said"),
    [
        ("slack-webhook/finance", "there is no block slack-webhook/finance on the Prefect server"),
        ("no-such-type/finance", "there is no block no-such-type/finance"),
        ("secret/not-a-channel", "secret/not-a-channel sends no notifications"),
        ("finance", "'finance' is not type and name of a block; write for instance slack-webhook/finance"),
    ],
)
def test_a_block_that_cannot_notify_is_one_line_and_changes_nothing(
    server: Server, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, block: str, said: str
) -> None:
    Secret(value="hush").save("not-a-channel", overwrite=True)
    _install(capsys)
    before = server.stored()
    monkeypatch.setenv("LEDGER_NOTIFICATION_BLOCK", block)
    for command in ("install", "list"):
        code, line = _refusal(capsys, "automations", command)
        assert code == 2
        assert line.startswith(f"ledger-eod: LEDGER_NOTIFICATION_BLOCK: {said}")
        assert "hush" not in line
    assert server.stored() == before


@pytest.fixture
def channel() -> Iterator[tuple[str, list[bytes]]]:
    """A listener on the loopback interface: its URL, and what was sent to it."""
    received: list[bytes] = []

    class Listener(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            received.append(self.rfile.read(int(self.headers["Content-Length"])))
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_: Any) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Listener) as listener:
        thread = threading.Thread(target=listener.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{listener.server_address[1]}", received
        listener.shutdown()
        thread.join()


def test_a_configured_block_is_used_by_its_name_and_its_secrets_stay_in_it(
    server: Server,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    channel: tuple[str, list[bytes]],
) -> None:
    url, received = channel
    CustomWebhookNotificationBlock(
        name="finance", url=url + "/{{token}}", secrets={"token": "hush"}, json_data={"text": "{{subject}}: {{body}}"}
    ).save("finance", overwrite=True)
    _install(capsys)
    monkeypatch.setenv("LEDGER_NOTIFICATION_BLOCK", "custom-webhook/finance")
    said = _install(capsys)
    assert [name for name, outcome in said.items() if outcome == "updated"] == [
        "discrepancies found", "approval awaited", "run is late", "run failed", "no end of day",
    ]  # fmt: skip
    assert "hush" not in json.dumps(server.stored())
    typed = server.client.create_flow_run_from_deployment(server.review_deployment, name="a-typo")
    server.client.set_flow_run_state(typed.id, Failed(name="Refused", message="there is no balance bln_x"), force=True)
    ended = server.client.create_flow_run_from_deployment(server.review_deployment, name="a-bad-run")
    server.client.set_flow_run_state(ended.id, Failed(message="2025-01-31 is not closed"), force=True)
    (sent,) = _eventually(lambda: received)
    text = json.loads(sent)["text"]
    assert text.startswith(
        "reconstruct-balances failed: The run a-bad-run of reconstruct-balances is Failed: 2025-01-31 is not closed. "
        "What is done stays; run it again when the reason is gone. Ledger: the embedded one. "
    )
    assert f"/runs/flow-run/{ended.id}" in text


def test_serving_goes_on_without_the_block_and_says_so(server: Server) -> None:
    api_url = str(PREFECT_API_URL.value())
    (line,) = install_automations(Settings(_env_file=None, notification_block="slack-webhook/finance"), api_url)
    assert line.startswith(
        "the automations are as they were: LEDGER_NOTIFICATION_BLOCK: there is no block slack-webhook"
    )
    assert server.stored() == {}
    assert len(install_automations(Settings(_env_file=None), api_url)) == len(NAMES)
    assert install_automations(Settings(_env_file=None), api_url) == []


# A night ------------------------------------------------------------------------------------------------------------


def test_a_night_with_everything_in_it(
    server: Server,
    books: Books,
    throwaway_folder: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Two verifications that find something, a run no worker takes, a run that dies, then no end of day any more."""
    books.post("""
        recorded          source  destination  amount
        2025-01-31 09:00  @world  wallet       1.00 USD
    """)
    for name, value in SHORT_SETTINGS.items():
        monkeypatch.setenv(name, value)
    with _night(server, books) as night:
        _eventually(lambda: server.events("ledger-eod.verification.clean") or night.poll())
        _install(capsys)
        time.sleep(LOADED_SECONDS)
        dying = server.client.create_flow_run_from_deployment(server.review_deployment, name="dying")
        server.client.create_flow_run_from_deployment(server.review_deployment, name="nobody-takes-it")
        with server.executing(dying.id, throwaway_folder):
            books.execute(
                "UPDATE blnk.balances SET credit_balance = credit_balance + 5 WHERE balance_id = 'bln_wallet'"
            )
            output, errors = night.communicate("\n", timeout=120)
            assert night.returncode == 0, errors
            assert "1 of them new" in output
            _eventually(
                lambda: any(
                    event["resource"]["prefect.resource.id"] == f"prefect.flow-run.{dying.id}"
                    for event in server.events("prefect.flow-run.heartbeat")
                )
            )

    # two verifications found it, the first started the one report on both, for the end of the review window
    found = _eventually(lambda: (seen := server.events("ledger-eod.verification.found"))[2:] and seen)
    assert [event["resource"]["ledger-eod.scope"] for event in found] == ["checksums", "since-close", "since-close"]
    (report,) = _eventually(
        lambda: [each for each in server.runs_of(server.review_deployment) if each.parameters.get("reason")]
    )
    assert report.parameters == {
        "select": "discrepancies",
        "mode": "report",
        "reason": f"{found[1]['resource']['prefect.resource.name']} found 1 discrepancies, 1 of them new",
    }
    assert report.expected_start_time is not None
    window = report.expected_start_time - datetime.fromisoformat(found[1]["occurred"])
    assert timedelta(minutes=15) <= window < timedelta(minutes=16)

    # everything that was found is told, with totals, the largest and the run
    database = f"{books.ledger.url.database} on "
    told = _eventually(
        lambda: (
            (runs := [run for name, told in server.notified().items() if database in name for run in told])[2:] and runs
        )
    )
    assert all(each.parameters["subject"].startswith(f"1 discrepancy in {database}") for each in told)
    (newest, *_) = sorted((each.parameters["body"] for each in told), key=lambda body: "since-close" not in body)
    assert "1 discrepancies, " in newest and "In all 5 USD in minor units, the largest bln_wallet: " in newest
    assert re.search(r"Verified by verify-balances-since-close-\d{4}-\d\d-\d\d: /runs/flow-run/[0-9a-f-]{36}$", newest)

    # the run that no worker takes, the one that died, and a night after which nothing came
    wanted = {"reconstruct-balances is late", "reconstruct-balances crashed", "no end of day"}
    _eventually(
        lambda: wanted <= set(server.notified()),
        otherwise=lambda: [
            set(server.notified()),
            server.client.read_flow_run(dying.id).state,
            server.told_of(dying.id),
            server.logged_of(dying.id),
        ],
    )
    notified = server.notified()
    (told_late,) = notified["reconstruct-balances is late"]
    assert (
        "The run nobody-takes-it of reconstruct-balances is late by more than 10 seconds"
        in told_late.parameters["body"]
    )
    (told_crashed,) = notified["reconstruct-balances crashed"]
    assert "dying of reconstruct-balances is Crashed: no heartbeat for 15 seconds" in told_crashed.parameters["body"]
    assert server.client.read_flow_run(dying.id).state_name == "Crashed"

    nights = _eventually(lambda: (seen := server.events("ledger-eod.end-of-day.completed"))[1:] and seen)
    assert [event["payload"]["dates"] for event in nights] == [["2025-01-31"], []]  # nothing to close: it ran, too
    ended = [datetime.fromisoformat(event["occurred"]) for event in nights]
    alarms = _eventually(  # the server acts on events before they can be read
        lambda: [
            datetime.fromisoformat(event["occurred"])
            for event in server.events("prefect.automation.triggered")
            if event["resource"]["prefect.resource.name"] == "ledger-eod: no end of day"
        ]
    )
    assert alarms[0] >= ended[-1] + SHORT  # each of the nights started the wait anew

    # without a block a notification is a warning in the log of a run that the UI shows
    (alarm, *_) = server.notified()["no end of day"]
    with server.executing(alarm.id, PROJECT) as process:
        assert process.wait(timeout=60) == 0
    assert server.client.read_flow_run(alarm.id).name == "no end of day"
    (line,) = _eventually(
        lambda: [each for each in _logs(server, alarm.id) if each["message"].startswith("no end of day {")]
    )
    assert line["level"] == 30
    assert json.loads(line["message"].removeprefix("no end of day "))["body"] == alarm.parameters["body"]


def _night(server: Server, books: Books) -> subprocess.Popen[str]:
    """An end of day and two verifications that find a tampered balance, then an end of day with nothing to close."""
    return subprocess.Popen(
        [sys.executable, "-c", A_NIGHT], cwd=PROJECT, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=server.variables | {"LEDGER_DATABASE_URL": books.ledger.url.render_as_string(hide_password=False)},
    )  # fmt: skip


def _logs(server: Server, flow_run_id: UUID) -> list[dict[str, Any]]:
    asked = {"logs": {"flow_run_id": {"any_": [str(flow_run_id)]}}}
    logs: list[dict[str, Any]] = server.client.request("POST", "/logs/filter", json=asked).json()
    return logs
