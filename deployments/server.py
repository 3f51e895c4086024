"""The Prefect server that a run reports to: the configured one, or a local one with its data in the project's folder.

The local server listens on 127.0.0.1 only and keeps its database under ``LEDGER_DATA_FOLDER/prefect``, so that runs
stay visible after the process that made them. Processes share it; the last to leave stops it.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ledger_db.errors import ConfigurationError
from ledger_db.settings import Settings, get_settings
from ledger_db.shared_use import SharedUse

HOST = "127.0.0.1"
DEFAULT_PORT = 4200
START_TIMEOUT_SECONDS = 120

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


def configured_api_url() -> str | None:
    """The Prefect API that the environment or the active Prefect profile names, if any."""
    from prefect.settings import PREFECT_API_URL

    return PREFECT_API_URL.value()


def running_api_url(settings: Settings) -> str | None:
    """The local server's API, if it runs and answers."""
    try:
        api_url = str(json.loads((prefect_folder(settings) / "server.json").read_text())["api_url"])
    except (OSError, ValueError, KeyError):
        return None
    return api_url if _answers(api_url) else None


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
            api_url = running_api_url(settings) or _start(settings, port or free_port())
        yield api_url
    finally:
        with use.leave() as last:
            if last:
                _stop(settings)


@contextmanager
def orchestrator() -> Iterator[str]:
    """The Prefect API for runs of this process: the configured one, else the local server. Yields its URL."""
    configured = configured_api_url()
    if configured is not None:
        os.environ.update({key: value for key, value in CLIENT_SETTINGS.items() if key not in os.environ})
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
            for key, value in before.items():
                os.environ.pop(key) if value is None else os.environ.update({key: value})
            refresh_global_settings_context()


def ui_url(api_url: str) -> str:
    """Where a browser finds the server."""
    return api_url.removesuffix("/api")


def _start(settings: Settings, port: int) -> str:
    folder = prefect_folder(settings)
    api_url = f"http://{HOST}:{port}/api"
    with (folder / "server.log").open("ab") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "prefect", "server", "start", "--host", HOST, "--port", str(port)],
            stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=environment(settings, api_url),
            start_new_session=True,
        )  # fmt: skip
    (folder / "server.json").write_text(json.dumps({"api_url": api_url, "pid": process.pid}))
    deadline = time.monotonic() + START_TIMEOUT_SECONDS
    while not _answers(api_url):
        if process.poll() is not None or time.monotonic() > deadline:
            process.kill()
            raise ConfigurationError(f"the Prefect server did not start on port {port}; see {folder / 'server.log'}")
        time.sleep(0.1)
    return api_url


def _stop(settings: Settings) -> None:
    state = prefect_folder(settings) / "server.json"
    try:
        pid = int(json.loads(state.read_text())["pid"])
        os.killpg(pid, signal.SIGTERM)
        for _ in range(100):
            os.killpg(pid, 0)
            _reap(pid)
            time.sleep(0.1)
        os.killpg(pid, signal.SIGKILL)
    except (OSError, ValueError, KeyError):
        pass  # it is gone
    state.unlink(missing_ok=True)


def _reap(pid: int) -> None:
    try:
        os.waitpid(pid, os.WNOHANG)
    except ChildProcessError:
        return  # another process started it


def _answers(api_url: str) -> bool:
    try:
        with urllib.request.urlopen(f"{api_url}/health", timeout=5) as response:  # noqa: S310 - our own http URL
            return bool(response.status == 200)
    except (OSError, urllib.error.URLError):
        return False
