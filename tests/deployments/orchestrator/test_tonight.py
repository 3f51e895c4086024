"""Whether tonight's close will start by itself, and when, as the doctor says it."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, time
from typing import Any

import pytest
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.actions import DeploymentScheduleCreate, WorkPoolCreate, WorkPoolUpdate
from prefect.client.schemas.schedules import CronSchedule
from prefect.states import Scheduled

from deployments.doctor import Finding, tonight
from ledger_db.settings import Settings

POOL = "ledger-eod-tonight"
BERLIN = Settings(_env_file=None, time_zone="Europe/Berlin")
#: A quarter past midnight in Berlin, in summer.
QUARTER_PAST = datetime(2099, 7, 1, 22, 15, tzinfo=UTC)


@pytest.fixture
def client(prefect_api_url: str) -> Iterator[SyncPrefectClient]:
    with get_client(sync_client=True) as client:
        client.create_work_pool(WorkPoolCreate(name=POOL, type="process"))
        yield client
        client.delete_work_pool(POOL)


@pytest.fixture
def nightly(client: SyncPrefectClient) -> Iterator[Any]:
    """The nightly deployment in Berlin's zone, with a run that is scheduled and a worker that is online."""
    schedule = DeploymentScheduleCreate(schedule=CronSchedule(cron="15 0 * * *", timezone="Europe/Berlin"), active=True)
    deployment_id = client.create_deployment(
        client.create_flow_from_name("end-of-day"), "nightly", schedules=[schedule], work_pool_name=POOL
    )
    client.send_worker_heartbeat(POOL, "worker", 60)
    yield client.read_deployment(deployment_id)
    client.delete_deployment(deployment_id)


def scheduled(client: SyncPrefectClient, nightly: Any, at: datetime) -> None:
    """Leave one run that is scheduled, at this instant."""
    for run in client.read_flow_runs():
        if run.deployment_id == nightly.id:
            client.delete_flow_run(run.id)
    client.create_flow_run_from_deployment(nightly.id, state=Scheduled(scheduled_time=at))


def found(client: SyncPrefectClient, nightly: Any, settings: Settings = BERLIN) -> Finding:
    return tonight(client, settings, [client.read_deployment(nightly.id)])


def test_tonight_is_told_in_the_ledgers_zone(client: SyncPrefectClient, nightly: Any) -> None:
    scheduled(client, nightly, QUARTER_PAST)
    assert found(client, nightly) == Finding(
        "tonight", "ok", "at 2099-07-02 00:15 Europe/Berlin it closes up to 2099-07-01"
    )


def test_nothing_starts_without_the_deployment(client: SyncPrefectClient) -> None:
    assert tonight(client, BERLIN, []).status == "missing"


def test_a_schedule_that_is_switched_off_is_no_night(client: SyncPrefectClient, nightly: Any) -> None:
    scheduled(client, nightly, QUARTER_PAST)
    (schedule,) = client.read_deployment_schedules(nightly.id)
    client.update_deployment_schedule(nightly.id, schedule.id, active=False)
    assert found(client, nightly) == Finding("tonight", "wrong", "the schedule of nightly is switched off")


def test_a_deployment_that_is_paused_is_no_night(client: SyncPrefectClient, nightly: Any) -> None:
    client.pause_deployment(nightly.id)
    assert found(client, nightly) == Finding("tonight", "wrong", "the deployment nightly is paused")


def test_a_work_pool_that_is_paused_is_no_night(client: SyncPrefectClient, nightly: Any) -> None:
    client.update_work_pool(POOL, WorkPoolUpdate(is_paused=True))
    assert found(client, nightly) == Finding("tonight", "wrong", f"the work pool {POOL} is paused")


def test_without_a_worker_there_is_no_night(client: SyncPrefectClient, nightly: Any) -> None:
    client.request(
        "DELETE", "/work_pools/{work_pool_name}/workers/{name}", path_params={"work_pool_name": POOL, "name": "worker"}
    )
    assert found(client, nightly) == Finding(
        "tonight", "wrong",
        f"no worker of {POOL} is online; ledger-eod serve runs one, or prefect worker start --pool {POOL}",
    )  # fmt: skip


def test_a_schedule_in_another_zone_than_the_jobs_is_wrong(client: SyncPrefectClient, nightly: Any) -> None:
    scheduled(client, nightly, QUARTER_PAST)
    assert found(client, nightly, Settings(_env_file=None, time_zone="Asia/Tokyo")) == Finding(
        "tonight", "wrong",
        "its schedule is in Europe/Berlin, the jobs are in Asia/Tokyo; ledger-eod deploy registers it anew",
    )  # fmt: skip


def test_a_schedule_long_after_the_cut_off_is_wrong(client: SyncPrefectClient, nightly: Any) -> None:
    scheduled(client, nightly, QUARTER_PAST)
    evening = Settings(_env_file=None, time_zone="Europe/Berlin", cut_off=time(17))
    assert found(client, nightly, evening).status == "ok"
    morning = Settings(_env_file=None, time_zone="Europe/Berlin", cut_off=time(0, 30))
    assert found(client, nightly, morning) == Finding(
        "tonight", "wrong",
        "at 2099-07-02 00:15 Europe/Berlin, 23.8 hours after 2099-06-30 has ended (LEDGER_CUT_OFF 00:30): move the "
        "schedule to a quarter of an hour after the cut-off",
    )  # fmt: skip


def test_a_run_that_is_not_scheduled_yet_is_missing(client: SyncPrefectClient, nightly: Any) -> None:
    for run in client.read_flow_runs():
        if run.deployment_id == nightly.id:
            client.delete_flow_run(run.id)
    assert found(client, nightly).status == "missing"
