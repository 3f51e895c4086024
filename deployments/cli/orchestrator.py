"""Prefect: register the deployments, serve them, install the automations; and the doctor, who examines everything."""

from __future__ import annotations

from typing import Annotated

import typer

from deployments import console, tables
from deployments.cli.access import migrated_ledger, prefect_client
from deployments.cli.exits import ExitCode
from deployments.cli.options import JsonOption
from ledger_db.errors import ConfigurationError
from ledger_db.settings import get_settings


def deploy() -> None:
    """Register every deployment of prefect.yaml, with the ledger's time zone, on the configured Prefect server.

    Makes the work pool "ledger-eod" unless it is there. Without PREFECT_API_URL: on the local server.
    """
    from deployments.orchestrator.serving import deploy_all

    settings = get_settings()
    with console.err().status("registering the deployments"):
        registered = deploy_all(settings)
    console.out().print(registered)


def serve(
    port: Annotated[int, typer.Option(min=1, max=65_535, help="Port of the server on 127.0.0.1.")] = 4200,
) -> None:
    """Run a local Prefect server with its UI, register deployments and automations and work on them, until Ctrl-C.

    Shows earlier runs of this data folder too, those of ledger-eod close and of the demo included.
    """
    from deployments.orchestrator.serving import serve

    migrated_ledger(make=True)
    serve(get_settings(), port=port)


def doctor(as_json: JsonOption = False) -> None:
    """Report what is configured, reachable, migrated and missing; changes nothing. Exit code 2: something is wrong."""
    from deployments.doctor import examine

    settings = get_settings()
    findings = examine(settings)
    if as_json:
        from deployments import wire

        console.write_json([wire.Finding.of(finding) for finding in findings])
    else:
        out = console.out()
        out.print(tables.settings_table(settings))
        out.print(tables.findings_table(findings))
    if any(finding.status == "wrong" for finding in findings):
        raise typer.Exit(ExitCode.MISUSED)


def install_automations() -> None:
    """Make every automation as it is declared, on the configured Prefect server, else on the local one.

    A second call changes nothing, and what a user has switched off stays off. The deployments come first: deploy.
    """
    waiting = False
    with prefect_client() as client:
        from deployments.orchestrator.automations import install

        for standing, outcome in install(client, get_settings()):
            waiting = waiting or standing.state == "waiting"
            console.out().print(tables.automation_line(standing.name, outcome, enabled=standing.enabled))
    if waiting:
        raise ConfigurationError("not every automation is installed: run ledger-eod deploy, then this again")


def list_automations(as_json: JsonOption = False) -> None:
    """List the automations: whether each is installed as it is declared, whether it is switched on, what it does."""
    with prefect_client() as client:
        from deployments.orchestrator.automations import standings

        found = list(standings(client, get_settings()))
    if as_json:
        from deployments import wire

        console.write_json([wire.Automation.of(each) for each in found])
    else:
        console.out().print(tables.automations_table(found))


def remove_automations() -> None:
    """Delete the project's automations from the Prefect server; others stay, and install makes them again."""
    with prefect_client() as client:
        from deployments.orchestrator.automations import remove

        removed = remove(client, get_settings())
    for name in removed:
        console.out().print(f"{name}: removed")
    if not removed:
        console.out().print("none is installed")
