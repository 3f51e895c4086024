"""The Prefect server that a run reports to: the configured one, or a local one with its data in the project's folder.

The local server listens on 127.0.0.1 only and keeps its database under ``LEDGER_DATA_FOLDER/prefect``, so that runs
stay visible after the process that made them. Processes share it; the last to leave stops it.
"""

from __future__ import annotations

import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import time as time_of_day
from pathlib import Path

from pydantic import SecretStr

from ledger_db.errors import ConfigurationError
from ledger_db.server.shared_use import SharedUse
from ledger_db.settings import Settings, get_settings

HOST = "127.0.0.1"
START_TIMEOUT_SECONDS = 120
STOP_TIMEOUT_SECONDS = 20
DRAIN_SECONDS = 10

#: What the server needs for runs of many small tasks, and to keep concurrency leases across a restart.
SERVER_SETTINGS = {
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    "PREFECT_SERVER_CONCURRENCY_LEASE_STORAGE": "prefect.server.concurrency.lease_storage.filesystem",
    "PREFECT_SERVER_SERVICES_EVENT_PERSISTER_BATCH_SIZE": "200",
    "PREFECT_SERVER_SERVICES_TASK_RUN_RECORDER_BATCH_SIZE": "200",
    "PREFECT_SERVER_SERVICES_TASK_RUN_RECORDER_FLUSH_INTERVAL": "1",
    "PREFECT_SERVER_LOGGING_LEVEL": "WARNING",
}

#: What every process that runs flows needs.
CLIENT_SETTINGS = {
    "PREFECT_SERVER_EPHEMERAL_ENABLED": "false",
    "PREFECT_LOGGING_EXTRA_LOGGERS": "ledger_db",
    "PREFECT_CLI_PROMPT": "false",
    "DO_NOT_TRACK": "1",
}


def prefect_folder(settings: Settings) -> Path:
    """Where the local server keeps its database and log."""
    return settings.data_folder.resolve() / "prefect"


def environment(settings: Settings, api_url: str | None = None) -> dict[str, str]:
    """The environment of a process that serves or runs flows locally."""
    local = os.environ | CLIENT_SETTINGS | SERVER_SETTINGS | {"PREFECT_HOME": str(prefect_folder(settings))}
    if api_url is not None:
        local["PREFECT_API_URL"] = api_url
    return local


def settings_environment(settings: Settings) -> dict[str, str]:
    """Every setting as a variable, for a process with another working folder, which finds no ``.env`` there."""
    return {variable_of(name): _as_variable(getattr(settings, name)) for name in type(settings).model_fields}


def variable_of(setting: str) -> str:
    """The environment variable of a setting."""
    return f"{Settings.model_config['env_prefix']}{setting}".upper()


def _as_variable(value: object) -> str:
    """A setting's value as its variable holds it; empty: unset."""
    if value is None:
        return ""
    if isinstance(value, SecretStr):
        return value.get_secret_value()
    if isinstance(value, Path):
        return str(value.resolve())
    if isinstance(value, time_of_day):
        return value.isoformat()
    if isinstance(value, dict):
        return json.dumps({key: str(each) for key, each in value.items()})
    return str(value)


def configured_api_url() -> str | None:
    """The Prefect API that the environment or the active Prefect profile names, if any."""
    from prefect.settings import PREFECT_API_URL

    url: str | None = PREFECT_API_URL.value()
    return url


def running_api_url(settings: Settings) -> str | None:
    """The local server's API, if it runs and answers."""
    known = _noted_server(settings)
    return known[0] if known is not None and _answers(known[0]) else None


def free_port() -> int:
    """A port of the loopback interface that nobody listens on."""
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        return int(probe.getsockname()[1])


@contextmanager
def local_server(settings: Settings | None = None, *, port: int | None = None) -> Iterator[str]:
    """The local server's API URL while the block lasts: started unless it runs, stopped by its last user.

    Raises:
        ConfigurationError: it does not start; the message names its log.
    """
    settings = settings or get_settings()
    folder = prefect_folder(settings)
    folder.mkdir(parents=True, exist_ok=True)
    use = SharedUse(folder)
    use.enter()
    try:
        with use.turn():
            api_url = _adopt(settings) or _start(settings, port or free_port())
        yield api_url
    finally:
        with use.leave() as last:
            if last:
                _stop(settings)


@contextmanager
def orchestrator(*, local: bool = False) -> Iterator[str]:
    """The Prefect API for runs of this process: the configured one unless ``local``, else the local server's.

    Yields its URL.

    Raises:
        ConfigurationError: the configured API does not answer, or the local server does not start.
    """
    # before Prefect's first import: it sets up logging then
    os.environ.update({key: value for key, value in CLIENT_SETTINGS.items() if key not in os.environ})
    configured = None if local else configured_api_url()
    if configured is not None:
        _require_reachable(configured)
        yield configured
        return
    settings = get_settings()
    with local_server(settings) as api_url:
        from prefect.context import refresh_global_settings_context

        ours = {key: value for key, value in environment(settings, api_url).items() if os.environ.get(key) != value}
        before = {key: os.environ.get(key) for key in ours}
        os.environ.update(ours)
        refresh_global_settings_context()
        try:
            yield api_url
        finally:
            _deliver_records()
            for key, value in before.items():
                os.environ.pop(key) if value is None else os.environ.update({key: value})
            refresh_global_settings_context()


def _deliver_records() -> None:
    """Send what Prefect still has queued, logs and events, while there is a server to take it."""
    from prefect.events.worker import EventsWorker
    from prefect.logging.handlers import APILogWorker

    for queue in (APILogWorker, EventsWorker):
        queue.drain_all(timeout=DRAIN_SECONDS)


def ui_url(api_url: str) -> str:
    """Where a browser finds the server."""
    return api_url.removesuffix("/api")


def _noted_server(settings: Settings) -> tuple[str, int] | None:
    """The API URL and the process of the local server that was started last, if that process still lives."""
    try:
        note = json.loads((prefect_folder(settings) / "server.json").read_text())
        api_url, pid = str(note["api_url"]), int(note["pid"])
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return (api_url, pid) if _is_server(pid, api_url) else None


def _adopt(settings: Settings) -> str | None:
    """The server that another process started, once it answers; None when there is none to wait for.

    It may be left over from a process that was killed, even while the server was starting.
    """
    deadline = time.monotonic() + START_TIMEOUT_SECONDS
    while (known := _noted_server(settings)) is not None:
        if _answers(known[0]):
            return known[0]
        if time.monotonic() > deadline:
            _stop(settings)
            return None
        time.sleep(0.1)
    return None


_children: dict[int, subprocess.Popen[bytes]] = {}


def _start(settings: Settings, port: int) -> str:
    folder = prefect_folder(settings)
    api_url = f"http://{HOST}:{port}/api"
    if not _is_free(port):
        raise ConfigurationError(f"port {port} of {HOST} is in use; choose another one with --port")
    with (folder / "server.log").open("ab") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "prefect", "server", "start", "--host", HOST, "--port", str(port)],
            stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=environment(settings, api_url),
            start_new_session=True,  # Ctrl-C reaches this process only, which stops the server last
        )  # fmt: skip
    _children[process.pid] = process
    note = folder / "server.json.new"
    note.write_text(json.dumps({"api_url": api_url, "pid": process.pid}))
    note.replace(folder / "server.json")
    deadline = time.monotonic() + START_TIMEOUT_SECONDS
    while not _answers(api_url):
        if process.poll() is not None or time.monotonic() > deadline:
            _stop(settings)
            raise ConfigurationError(f"the Prefect server did not start on port {port}; see {folder / 'server.log'}")
        time.sleep(0.1)
    return api_url


def _stop(settings: Settings) -> None:
    known = _noted_server(settings)
    if known is not None:
        _end_group(known[1], lambda: _is_server(known[1], known[0]))
    (prefect_folder(settings) / "server.json").unlink(missing_ok=True)


def end_session(process: subprocess.Popen[bytes]) -> None:
    """End a process that was started in a session of its own, with all that it started."""
    _end_group(process.pid, lambda: process.poll() is None)


def _end_group(pid: int, is_alive: Callable[[], bool]) -> None:
    """Ask a process group to end, and kill it when it does not in time."""
    try:
        os.killpg(pid, signal.SIGTERM)
        deadline = time.monotonic() + STOP_TIMEOUT_SECONDS
        while time.monotonic() < deadline:
            if not is_alive():
                return
            time.sleep(0.05)
        os.killpg(pid, signal.SIGKILL)
        is_alive()  # reaps it
    except ProcessLookupError:
        return  # it is gone


def _is_server(pid: int, api_url: str) -> bool:
    """Whether a process is the server of that URL, and not another process that got its number."""
    _reap(pid)
    process = Path(f"/proc/{pid}")
    try:
        if Path("/proc/self").exists():
            command = (process / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
        else:
            listed = subprocess.run(["ps", "-ww", "-o", "command=", "-p", str(pid)], capture_output=True, check=False)
            command = listed.stdout.decode(errors="replace")
    except OSError:
        return False
    port = api_url.removesuffix("/api").rpartition(":")[2]
    return "prefect" in command and "server start" in command and command.split()[-1:] == [port]


def _reap(pid: int) -> None:
    """Reap a server that this process started and that has ended, so that its number is free."""
    child = _children.get(pid)
    if child is not None and child.poll() is not None:
        del _children[pid]


def _answers(api_url: str) -> bool:
    try:
        with urllib.request.urlopen(f"{api_url}/health", timeout=5) as response:  # noqa: S310 - our own http URL
            return bool(response.status == 200)
    except (OSError, http.client.HTTPException):
        return False


def _require_reachable(api_url: str) -> None:
    """Refuse to begin a run that no server would record."""
    try:
        urllib.request.urlopen(f"{api_url}/health", timeout=10).close()  # noqa: S310 - the user's own setting
    except urllib.error.HTTPError:
        return  # it answers; it asks for a key, which Prefect has
    except (OSError, ValueError, http.client.HTTPException) as error:
        reason = getattr(error, "reason", error)
        raise ConfigurationError(
            f"cannot reach the Prefect server at {shown_url(api_url)}: {reason}; "
            "start it, or unset PREFECT_API_URL to use a local one"
        ) from None


def shown_url(url: str) -> str:
    """A URL without what may be a password in it."""
    scheme, separator, rest = url.partition("://")
    return f"{scheme}{separator}{rest.rpartition('@')[2]}"


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError:
            return False
    return True
