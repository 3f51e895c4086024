"""The application: every command under its name, in the order of the help; and the entry point."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Annotated

import typer

from deployments.cli import close, correction, history, ledger, orchestrator, verification
from deployments.cli.exits import debugging, exit_on_sigterm, guarded

app = typer.Typer(
    name="ledger-eod",
    help="Close a double-entry ledger's day: exact snapshots, certified totals, history that stays right.",
    epilog="Settings are LEDGER_* variables or lines of a .env file; ledger-eod doctor lists them. "
    "Exit codes: 0 done, 1 a fact of the ledger or a failed job, 2 wrong usage or configuration, "
    "3 another process is at work, 4 somebody must approve.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
automations = typer.Typer(
    help="What Prefect's server does by itself: report on discrepancies, and notify of what was found, of approvals "
    "that are awaited, of late, failed and silent runs, and of a night without an end of day. Notifications are "
    "warnings in the log, or go through LEDGER_NOTIFICATION_BLOCK.",
    no_args_is_help=True,
    rich_markup_mode=None,
)


@app.callback()
def _every_command(
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")] = False,
) -> None:
    debugging.on = debug


app.command("migrate")(ledger.migrate)
app.command("generate")(ledger.generate)
app.command("import", help=ledger.IMPORT_HELP)(ledger.import_file)
app.command("snapshot")(close.snapshot)
app.command("close")(close.close)
app.command("prepare-close")(close.prepare_close)
app.command("verify")(verification.verify)
app.command("discrepancies")(verification.discrepancies)
app.command("reconstruct")(correction.reconstruct)
app.command("corrections")(correction.corrections)
app.command("declare-opening")(verification.declare_opening)
app.command("abandon")(close.abandon)
app.command("new-chain")(close.new_chain)
app.command("digest-closes")(close.digest_closes)
app.command("balance-at")(history.balance_at)
app.command("balances")(ledger.balances)
app.command("runs")(close.runs)
app.command("deploy")(orchestrator.deploy)
app.command("serve")(orchestrator.serve)
app.command("doctor")(orchestrator.doctor)
app.add_typer(automations, name="automations")
automations.command("install")(orchestrator.install_automations)
automations.command("list")(orchestrator.list_automations)
automations.command("remove")(orchestrator.remove_automations)


def run(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code; an error is one line on standard error."""
    command = typer.main.get_command(app)
    return guarded(lambda: command.main(args=arguments, prog_name="ledger-eod", standalone_mode=False))


def main() -> None:
    """The entry point of the installed ``ledger-eod``."""
    exit_on_sigterm()
    sys.exit(run())
