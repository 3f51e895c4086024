"""The doctor: what is configured, reachable, migrated and missing.

Reads only. Starts the embedded ledger if there is one.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any, Literal

from sqlalchemy import Connection

from deployments.hints import WORDS, with_hint
from deployments.orchestrator.server import configured_api_url, running_api_url, shown_url
from ledger_db.close.runs import Run
from ledger_db.errors import ConfigurationError, Hint, LedgerError
from ledger_db.server import embedded
from ledger_db.server.connections import display_url, ledger_engine, reachable
from ledger_db.settings import Settings

if TYPE_CHECKING:
    from prefect.client.orchestration import SyncPrefectClient

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
    return [*_versions(), *_ledger(settings), *_prefect(settings)]


def _versions() -> Iterator[Finding]:
    for name in ("ledger-eod", "prefect", "sqlalchemy", "psycopg"):
        try:
            yield Finding(name, "ok", version(name))
        except PackageNotFoundError:
            yield Finding(name, "missing", "not installed as a distribution")


def _ledger(settings: Settings) -> Iterator[Finding]:
    if settings.database_url is None:
        folder = settings.data_folder.resolve()
        if not (folder / "postgres" / "PG_VERSION").exists():
            yield Finding("ledger", "missing", f"no embedded ledger in {folder} yet; ledger-eod migrate makes it")
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
        yield Finding("balances", "missing", "the ledger is empty; ledger-eod generate or import fills it")
    closes = list_runs(connection, limit=100, kind="close")
    certified = [run for run in closes if run.certified]
    if certified:
        newest = certified[0]
        yield Finding("newest close", "ok", f"{newest.name}, {newest.snapshot_count:,} snapshots")
    else:
        yield Finding("newest close", "missing", "no date is closed yet; ledger-eod close closes the last that ended")
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
        return
    from prefect.client.orchestration import get_client
    from prefect.settings import PREFECT_API_URL, temporary_settings

    where = shown_url(api_url)
    try:
        with temporary_settings({PREFECT_API_URL: api_url}), get_client(sync_client=True) as client:
            registered: list[Any] = [
                deployment for deployment in client.read_deployments() if "ledger-eod" in (deployment.tags or [])
            ]
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
    yield automations


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
