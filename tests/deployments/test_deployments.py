"""Every deployment fits its flow, starts at a sound local time, and keeps its form's help and bounds on the way."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from prefect import Flow
from prefect.client.orchestration import get_client
from prefect.flows import load_flow_from_entrypoint
from prefect.utilities.callables import parameter_schema

from deployments.doctor import EXPECTED_DEPLOYMENTS
from deployments.orchestrator.server import settings_environment
from deployments.orchestrator.serving import WORK_POOL, prefect_yaml, register
from ledger_db.settings import Settings

GOLDEN = Path(__file__).with_name("golden")
CONFIGURED: list[dict[str, Any]] = yaml.safe_load(prefect_yaml().read_text())["deployments"]
FLOWS = sorted({deployment["entrypoint"] for deployment in CONFIGURED})


def _named(deployment: dict[str, Any]) -> str:
    return f"{deployment['entrypoint'].split('.')[1]}/{deployment['name']}"


def _flow(entrypoint: str) -> Flow[..., Any]:
    return load_flow_from_entrypoint(entrypoint)


@pytest.mark.parametrize("deployment", CONFIGURED, ids=_named)
def test_parameters_fit_the_flow(deployment: dict[str, Any]) -> None:
    flow = _flow(deployment["entrypoint"])
    assert flow.validate_parameters(deployment["parameters"]).items() >= deployment["parameters"].items()


@pytest.mark.parametrize("deployment", CONFIGURED, ids=_named)
def test_schedules_start_outside_the_hours_that_clocks_change_in(deployment: dict[str, Any]) -> None:
    for schedule in deployment["schedules"]:
        minutes, hours, *_ = schedule["cron"].split()
        for hour in hours.split(","):
            if hour != "*":
                first, _, last = hour.partition("-")
                for each in range(int(first), int(last or first) + 1):
                    assert not 59 <= each * 60 + int(minutes) <= 181
            else:
                assert schedule["active"] is False, (
                    "every hour is an example: nobody waits for the hour that is missing"
                )
        assert schedule["timezone"] == "{{ LEDGER_TIME_ZONE }}"
        assert schedule["slug"] == deployment["name"]


@pytest.mark.parametrize("deployment", CONFIGURED, ids=_named)
def test_says_what_it_is_and_runs_one_at_a_time(deployment: dict[str, Any]) -> None:
    assert len(deployment["description"]) > 80
    assert "ledger-eod" in deployment["tags"]
    assert deployment["concurrency_limit"] == {"limit": 1, "collision_strategy": "ENQUEUE"}
    assert deployment["work_pool"]["name"] == WORK_POOL


def test_only_the_examples_are_switched_off() -> None:
    off = [d["name"] for d in CONFIGURED for schedule in d["schedules"] if schedule.get("active") is False]
    assert off == ["hourly", "every-six-hours", "requested"]
    assert [d["name"] for d in CONFIGURED if "example" in d["tags"]] == off
    assert len(CONFIGURED) == EXPECTED_DEPLOYMENTS


@pytest.mark.parametrize("entrypoint", FLOWS)
def test_parameter_schema_is_the_golden_one(entrypoint: str) -> None:
    flow = _flow(entrypoint)
    schema = json.dumps(parameter_schema(flow).model_dump(), indent=2) + "\n"
    golden = GOLDEN / f"{flow.name}.json"
    if os.environ.get("EOD_WRITE_GOLDEN"):
        golden.write_text(schema)
    assert schema == golden.read_text(), "EOD_WRITE_GOLDEN=1 writes it anew"


@pytest.mark.parametrize("entrypoint", FLOWS)
def test_every_parameter_has_help_and_batch_size_its_bounds(entrypoint: str) -> None:
    properties = parameter_schema(_flow(entrypoint)).properties
    for name, found in properties.items():
        assert found.get("description"), f"{name} has no help"
    if "batch_size" not in properties:
        return
    batch_size = properties["batch_size"]
    number = next((kind for kind in batch_size.get("anyOf", []) if kind["type"] == "integer"), batch_size)
    assert (number["minimum"], number["maximum"]) == (1, 1_000_000)


def _environment(prefect_api_url: str, **settings: str) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("LEDGER_", "COVERAGE"))}
    return kept | {"PREFECT_API_URL": prefect_api_url} | settings


@pytest.fixture
def api_url(prefect_api_url: str) -> Iterator[str]:
    """The server's API, and no deployment left on it: other tests share the server, and the doctor looks at them."""
    yield prefect_api_url
    with get_client(sync_client=True) as client:
        for deployment in client.read_deployments():
            client.delete_deployment(deployment.id)


def _registered() -> dict[str, Any]:
    with get_client(sync_client=True) as client:
        return {
            f"{client.read_flow(deployment.flow_id).name}/{deployment.name}": deployment
            for deployment in client.read_deployments()
            if deployment.work_pool_name == WORK_POOL
        }


def test_worker_gets_every_setting(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = Settings(
        database_url="postgresql://ledger:secret@db/blnk", time_zone="Europe/Berlin", cut_off="17:00", batch_size=7,
        piece_size=9, workers=3, statement_timeout_seconds=11, lock_timeout_seconds=13,
        approval_limits={"USD": "5000", "EUR": 0}, approval_balances=2, approval_hours=5,
        notification_block="slack-webhook/finance", review_window_seconds=17,
        end_of_day_expected_seconds=3601, late_run_seconds=19, silent_run_seconds=601, data_folder="/var/lib/ledger",
    )  # fmt: skip
    for name, value in settings_environment(settings).items():
        monkeypatch.setenv(name, value)
    assert settings.model_fields_set == set(Settings.model_fields)
    assert Settings() == settings


def test_deploy_registers_all_of_them_in_the_ledgers_zone(api_url: str) -> None:
    register(Settings(_env_file=None, time_zone="Europe/Berlin"), _environment(api_url))
    found = _registered()
    assert sorted(found) == sorted(
        f"{_flow(deployment['entrypoint']).name}/{deployment['name']}" for deployment in CONFIGURED
    )
    zones = {name: [s.schedule.timezone for s in found[name].schedules] for name in found}
    assert zones == {
        "end-of-day/nightly": ["Europe/Berlin"],
        "notify/log": [],
        "prepare-close/hourly": ["Europe/Berlin"],
        "reconstruct-balances/ad-hoc": [],
        "reconstruct-balances/discrepancies": [],
        "reconstruct-balances/requested": ["Europe/Berlin"],
        "snapshot-balances/ad-hoc": [],
        "snapshot-balances/every-six-hours": ["Europe/Berlin"],
        "snapshot-balances/month-end": ["Europe/Berlin"],
        "verify-balances/weekly-checksums": ["Europe/Berlin"],
        "verify-balances/weekly-from-genesis": ["Europe/Berlin"],
    }
    assert found["end-of-day/nightly"].global_concurrency_limit.limit == 1
    assert found["end-of-day/nightly"].parameter_openapi_schema["properties"]["batch_size"]["description"]
    assert found["end-of-day/nightly"].enforce_parameter_schema


def test_prefect_deploy_as_the_readme_writes_it_is_utc_without_a_zone(api_url: str) -> None:
    register(Settings(_env_file=None, time_zone="Europe/Berlin"), _environment(api_url))  # makes the pool
    finished = subprocess.run(
        [sys.executable, "-m", "prefect", "deploy", "--all"],
        cwd=prefect_yaml().parent, env=_environment(api_url, PREFECT_CLI_PROMPT="false"),
        stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert finished.returncode == 0, finished.stdout
    assert [s.schedule.timezone for s in _registered()["end-of-day/nightly"].schedules] == [
        None
    ]  # which Prefect takes for UTC
