"""Register the deployments of ``prefect.yaml``, and run a local server with all of it and a worker in one command."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

from deployments import console, tables
from deployments.hints import with_hint
from deployments.orchestrator.server import (
    configured_api_url,
    end_session,
    environment,
    local_server,
    orchestrator,
    settings_environment,
    shown_url,
    ui_url,
)
from ledger_db.errors import ConfigurationError, LedgerError
from ledger_db.settings import Settings, project_folder

WORK_POOL = "ledger-eod"
WORK_POOL_TYPE = "process"
DEPLOY_TIMEOUT_SECONDS = 120


class DeployFailed(LedgerError):
    """The deployments were not all registered; registering is safe to repeat."""


def prefect_yaml() -> Path:
    """The checkout's ``prefect.yaml``, or the copy that the installed package carries."""
    checkout = project_folder() / "prefect.yaml"
    return checkout if checkout.is_file() else Path(__file__).parent.parent / "prefect.yaml"


def deploy_all(settings: Settings) -> str:
    """Register every deployment on the configured server, else on the local one; returns a line that says where."""
    is_local = configured_api_url() is None
    with orchestrator() as api_url:
        register(settings, os.environ | settings_environment(settings))
    if is_local:
        return "deployments registered on the local server; ledger-eod serve runs them"
    where = shown_url(ui_url(api_url))
    return f"deployments registered at {where}; a worker runs them: prefect worker start --pool {WORK_POOL}"


def register(settings: Settings, variables: dict[str, str]) -> None:
    """Make the work pool unless it is there, and register every deployment in the zone of the settings.

    Raises:
        DeployFailed: with the last line that Prefect printed.
    """
    variables = variables | {"LEDGER_TIME_ZONE": settings.time_zone, "PREFECT_CLI_COLORS": "false"}
    pool = _prefect(variables, "work-pool", "create", WORK_POOL, "--type", WORK_POOL_TYPE)
    if pool.returncode != 0 and "already exists" not in " ".join(pool.stdout.split()):
        raise DeployFailed(f"cannot make the work pool {WORK_POOL}: {_last_line(pool.stdout)}")
    deployed = _prefect(variables, "deploy", "--all", "--prefect-file", str(prefect_yaml()))
    if deployed.returncode != 0:
        raise DeployFailed(f"cannot register the deployments: {_last_line(deployed.stdout)}")


def install_automations(settings: Settings, api_url: str) -> list[str]:
    """Make the automations as they are declared on a server; returns a line for each that changed or is switched off.

    A missing notification block is also only a line: the night must be closed all the same.
    """
    from prefect.client.orchestration import get_client
    from prefect.settings import PREFECT_API_URL, temporary_settings

    from deployments.orchestrator.automations import install

    with temporary_settings({PREFECT_API_URL: api_url}), get_client(sync_client=True) as client:
        try:
            return [
                tables.automation_line(standing.name, outcome, enabled=standing.enabled)
                for standing, outcome in install(client, settings)
                if outcome != "unchanged" or not standing.enabled
            ]
        except ConfigurationError as error:
            return [f"the automations are as they were: {with_hint(error)}"]


def _prefect(variables: dict[str, str], *arguments: str) -> subprocess.CompletedProcess[str]:
    try:
        return subprocess.run(
            [sys.executable, "-P", "-m", "prefect", "--no-prompt", *arguments],
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False,
            env=variables, cwd=prefect_yaml().parent, timeout=DEPLOY_TIMEOUT_SECONDS,
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        raise DeployFailed(f"prefect {arguments[0]} gave no answer in {DEPLOY_TIMEOUT_SECONDS} s") from None


def _last_line(output: str) -> str:
    lines = [line.strip(" │╭╰─╮╯") for line in output.splitlines()]
    return ([line for line in lines if line] or ["no output"])[-1]


def serve(settings: Settings, *, port: int) -> None:
    """Run the local server, all deployments, automations and a worker until Ctrl-C; then stop them, the server last.

    Raises:
        ConfigurationError: another Prefect server is configured, or the port is taken.
        DeployFailed: the deployments cannot be registered.
        WorkerEnded: the worker ended by itself.
    """
    configured = configured_api_url()
    if configured is not None:
        raise ConfigurationError(
            f"PREFECT_API_URL names a Prefect server already, {shown_url(configured)}: use ledger-eod deploy and "
            f"prefect worker start --pool {WORK_POOL}, or unset it to serve locally"
        )
    terminal = console.out()
    with console.err().status("starting the Prefect server") as status, local_server(settings, port=port) as api_url:
        variables = environment(settings, api_url) | settings_environment(settings)
        status.update("registering the deployments")
        register(settings, variables)
        status.update("installing the automations")
        for line in install_automations(settings, api_url):
            terminal.print(line)
        worker = subprocess.Popen(
            [sys.executable, "-P", "-m", "prefect", "worker", "start", "--pool", WORK_POOL, "--type", WORK_POOL_TYPE,
             "--name", "ledger-eod serve"],
            stdin=subprocess.DEVNULL, env=variables, cwd=prefect_yaml().parent,
            start_new_session=True,  # Ctrl-C reaches this process only, which stops the worker first, then the server
        )  # fmt: skip
        try:
            status.stop()
            terminal.print(f"Prefect UI with deployments, forms and runs: {ui_url(api_url)}")
            terminal.print("the nightly close is scheduled, a worker is at work; Ctrl-C stops all of it")
            while worker.poll() is None:
                time.sleep(0.5)
        except KeyboardInterrupt:
            terminal.print("stopping the worker, then the server")
            return
        finally:
            end_session(worker)
    raise WorkerEnded(f"the worker ended by itself with exit code {worker.returncode}; its log is above")


class WorkerEnded(LedgerError):
    """The worker that ``serve`` started is gone."""
