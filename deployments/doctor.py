"""The doctor: what is configured, reachable, migrated and missing.

Reads only. Starts the embedded ledger if there is one.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any, Literal

from sqlalchemy import Connection

from deployments.hints import WORDS, with_hint
from deployments.orchestrator.server import configured_api_url, running_api_url, shown_url
from ledger_db.close.runs import Run
from ledger_db.errors import ConfigurationError, Hint, LedgerError, NothingSelected
from ledger_db.server import embedded
from ledger_db.server.connections import display_url, ledger_engine, reachable
from ledger_db.settings import Settings, get_settings, other_variables

if TYPE_CHECKING:
    from prefect.client.orchestration import SyncPrefectClient

NIGHTLY = "nightly"  # the deployment that closes
LONG_AFTER_CUT_OFF = timedelta(hours=12)
EXPECTED_DEPLOYMENTS = 11  # as many as prefect.yaml declares, which a test compares


@dataclass(frozen=True)
class Finding:
    """One thing that was examined.

    ``wrong`` keeps the night from running, or its notifications from arriving. ``missing`` is only not there yet.
    """

    subject: str
    status: Literal["ok", "missing", "wrong"]
    detail: str


def examine(settings: Settings) -> list[Finding]:
    """Examine everything that a night needs, in the order in which it is needed."""
    return [*_versions(), *_variables(), *_ledger(settings), *_prefect(settings)]


def _variables() -> Iterator[Finding]:
    """Variables that could be meant as settings."""
    if others := other_variables():
        yield Finding("settings", "missing", f"{', '.join(others)}: no settings of this project, and ignored")


def _versions() -> Iterator[Finding]:
    for name in ("ledger-eod", "prefect", "sqlalchemy", "psycopg"):
        try:
            yield Finding(name, "ok", version(name))
        except PackageNotFoundError:
            yield Finding(name, "missing", "not installed as a distribution")


def _ledger(settings: Settings) -> Iterator[Finding]:
    if settings.database_url is None:
        folder = settings.data_folder.resolve()
        if not embedded.has_cluster(folder):
            yield Finding(
                "ledger", "wrong",
                f"LEDGER_DATABASE_URL is not set, and {folder} has no embedded ledger; {WORDS[Hint.name_the_ledger]}",
            )  # fmt: skip
            return
        server = embedded.running_server(settings.data_folder)
        yield Finding(
            "embedded PostgreSQL", "ok", f"{folder}, {'runs' if server else 'stopped, it is started when needed'}"
        )
    try:
        engine = ledger_engine()
        answer = reachable(engine)
    except ConfigurationError as error:
        yield Finding("ledger", "wrong", with_hint(error))
        return
    yield Finding("ledger", "ok", f"PostgreSQL {answer} at {display_url(engine.url)}")
    with engine.connect() as connection:
        yield from _schema(connection, today=settings.calendar.business_date_of(datetime.now(UTC)))


def _schema(connection: Connection, *, today: date) -> Iterator[Finding]:
    from ledger_db.attach.migrate import schema_state
    from ledger_db.books.accounts import list_balances
    from ledger_db.close.runs import list_runs, stale_interim_runs

    state = schema_state(connection)
    if not state.is_current:
        yield Finding(
            "schema", "wrong", f"at {state.current or 'nothing'}, wanted {state.head}; run ledger-eod migrate"
        )
        return
    yield Finding("schema", "ok", f"at {state.head}")
    if not list_balances(connection, limit=1):
        yield Finding("balances", "missing", "the ledger is empty: it is neither closed nor verified")
    closes = list_runs(connection, limit=100, kind="close")
    certified = [run for run in closes if run.certified]
    if certified:
        newest = certified[0]
        yield Finding("newest close", "ok", f"{newest.name}, {newest.snapshot_count:,} snapshots")
    else:
        yield _first_close(connection)
    yield from _records(connection)
    for run in closes:
        if run.status == "open":
            yield _open_close(run)
    for run in stale_interim_runs(connection, before=today):
        yield Finding(
            "open interim run", "missing",
            f"{run.name}: {run.refusal or 'unfinished'}, and its day has passed; ledger-eod snapshot --kind interim "
            f"--date {run.business_date} finishes it, ledger-eod abandon {run.run_id} --yes gives it up",
        )  # fmt: skip


def _first_close(connection: Connection) -> Finding:
    """Whether the first close could begin."""
    from ledger_db.close.first_close import first_date_to_close

    calendar = get_settings().calendar
    try:
        first = first_date_to_close(connection, calendar=calendar, last=calendar.last_ended(datetime.now(UTC)))
    except NothingSelected as error:
        return Finding("newest close", "missing", f"no date is closed yet: {error}")
    except LedgerError as error:
        return Finding("newest close", "wrong", with_hint(error))
    return Finding("newest close", "missing", f"no date is closed yet; ledger-eod close begins with {first}")


def _records(connection: Connection) -> Iterator[Finding]:
    """Whether the next close could count: rows are of this cluster, and those that were counted have their keys."""
    from ledger_db.close.cluster import require_own_records
    from ledger_db.close.later_digests import old_closes
    from ledger_db.close.opening import require_whole_chain
    from ledger_db.close.runs import newest_certified_close
    from ledger_db.close.samples import require_same_rows

    try:
        require_own_records(connection)
        require_whole_chain(connection)
        require_same_rows(connection, newest_certified_close(connection))
    except LedgerError as error:
        yield Finding("transactions", "wrong", with_hint(error))
    else:
        yield Finding("transactions", "ok", "recorded here, under the keys that closes counted")
    if old := old_closes(connection):
        yield Finding(
            "old closes", "missing",
            f"{len(old)} have only checksums that can be forged; ledger-eod digest-closes digests their rows anew",
        )  # fmt: skip


def _prefect(settings: Settings) -> Iterator[Finding]:
    configured = configured_api_url()
    api_url = configured or running_api_url(settings)
    if api_url is None:
        yield Finding(
            "Prefect server", "missing", "none configured, the local one is stopped; ledger-eod serve starts it"
        )
        yield Finding("tonight", "missing", "without a Prefect server nothing starts by itself")
        return
    from prefect.client.orchestration import get_client
    from prefect.settings import PREFECT_API_URL, temporary_settings

    where = shown_url(api_url)
    try:
        with temporary_settings({PREFECT_API_URL: api_url}), get_client(sync_client=True) as client:
            registered: list[Any] = [
                deployment for deployment in client.read_deployments() if "ledger-eod" in (deployment.tags or [])
            ]
            night = tonight(client, settings, registered)
            automations = _automations(client, settings)
    except Exception as error:  # whatever it is, the server cannot be used
        reason = " ".join(str(error).split()) or type(error).__name__
        yield Finding("Prefect server", "wrong" if configured else "missing", f"{where}: {reason}")
        return
    yield Finding("Prefect server", "ok", where)
    names = ", ".join(sorted(deployment.name for deployment in registered))
    if len(registered) < EXPECTED_DEPLOYMENTS:
        yield Finding("deployments", "missing", f"{names or 'none'} of {EXPECTED_DEPLOYMENTS}; run ledger-eod deploy")
    else:
        yield Finding("deployments", "ok", names)
    yield night
    yield automations


def tonight(client: SyncPrefectClient, settings: Settings, registered: list[Any]) -> Finding:
    """Whether the nightly close will start by itself, and when."""
    nightly = next((each for each in registered if each.name == NIGHTLY), None)
    if nightly is None:
        return Finding("tonight", "missing", f"no deployment {NIGHTLY}: nothing will start by itself")
    stopped = [*_switched_off(client, nightly), *_other_zones(nightly, settings)]
    if stopped:
        return Finding("tonight", "wrong", "; ".join(stopped))
    starts_at = _next_start(client, nightly)
    if starts_at is None:
        return Finding("tonight", "missing", "no run is scheduled yet; the server does so within a minute")
    closed = settings.calendar.last_ended(starts_at)
    late = starts_at - settings.calendar.closes_at(closed)
    local = f"{starts_at.astimezone(settings.zone):%Y-%m-%d %H:%M} {settings.time_zone}"
    if late > LONG_AFTER_CUT_OFF:
        hours = late.total_seconds() / 3600
        return Finding(
            "tonight", "wrong",
            f"at {local}, {hours:.1f} hours after {closed} has ended (LEDGER_CUT_OFF {settings.cut_off:%H:%M}): move "
            "the schedule to a quarter of an hour after the cut-off",
        )  # fmt: skip
    return Finding("tonight", "ok", f"at {local} it closes up to {closed}")


def _switched_off(client: SyncPrefectClient, nightly: Any) -> Iterator[str]:
    """What keeps the server from starting it."""
    if nightly.paused:
        yield f"the deployment {NIGHTLY} is paused"
    if not any(schedule.active for schedule in nightly.schedules):
        yield f"the schedule of {NIGHTLY} is switched off"
    if not nightly.work_pool_name:
        yield f"the deployment {NIGHTLY} has no work pool"
        return
    if client.read_work_pool(nightly.work_pool_name).is_paused:
        yield f"the work pool {nightly.work_pool_name} is paused"
    queue = nightly.work_queue_name and client.read_work_queue_by_name(nightly.work_queue_name, nightly.work_pool_name)
    if queue and queue.is_paused:
        yield f"the work queue {queue.name} is paused"
    workers = client.read_workers_for_work_pool(nightly.work_pool_name)
    if not any(worker.status == "ONLINE" for worker in workers):
        yield (
            f"no worker of {nightly.work_pool_name} is online; ledger-eod serve runs one, or prefect worker start "
            f"--pool {nightly.work_pool_name}"
        )


def _other_zones(nightly: Any, settings: Settings) -> Iterator[str]:
    """Schedules that do not follow the jobs' zone."""
    for schedule in nightly.schedules:
        zone = getattr(schedule.schedule, "timezone", None) or "UTC"
        if schedule.active and zone != settings.time_zone:
            yield (
                f"its schedule is in {zone}, the jobs are in {settings.time_zone}; ledger-eod deploy registers it anew"
            )


def _next_start(client: SyncPrefectClient, nightly: Any) -> datetime | None:
    from prefect.client.schemas.filters import DeploymentFilter, FlowRunFilter
    from prefect.client.schemas.sorting import FlowRunSort

    scheduled = client.read_flow_runs(
        flow_run_filter=FlowRunFilter.model_validate(
            {"state": {"type": {"any_": ["SCHEDULED"]}}, "expected_start_time": {"after_": datetime.now(UTC)}}
        ),
        deployment_filter=DeploymentFilter.model_validate({"id": {"any_": [nightly.id]}}),
        sort=FlowRunSort.EXPECTED_START_TIME_ASC,
        limit=1,
    )
    starts_at = scheduled[0].next_scheduled_start_time or scheduled[0].expected_start_time if scheduled else None
    return None if starts_at is None else datetime.fromtimestamp(starts_at.timestamp(), tz=UTC)


def _automations(client: SyncPrefectClient, settings: Settings) -> Finding:
    from deployments.orchestrator.automations import standings

    try:
        found = list(standings(client, settings))
    except ConfigurationError as error:
        return Finding("automations", "wrong", with_hint(error))
    not_installed = [
        f"{each.name}: {f'waits for {each.waiting_for}' if each.waiting_for else each.state}"
        for each in found
        if each.state != "installed"
    ]
    if not_installed:
        return Finding("automations", "missing", f"{'; '.join(not_installed)}; run ledger-eod automations install")
    off = [each.name for each in found if not each.enabled]
    return Finding(
        "automations", "ok", f"{len(found)} installed" + (f", switched off: {', '.join(off)}" if off else "")
    )


def _open_close(run: Run) -> Finding:
    """A close that is not certified; one that was refused names what does not prove, and what to do about it."""
    if run.refusal is None:
        return Finding("open close", "missing", f"{run.name}: unfinished; ledger-eod close completes it")
    return Finding(
        "open close", "wrong",
        f"{run.name}: {run.refusal}; ledger-eod close tries it again, {WORDS[Hint.verify_checksums]}",
    )  # fmt: skip
