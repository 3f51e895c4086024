"""Closing the day: snapshots, the end of day, the list of runs, and giving one up."""

from __future__ import annotations

from datetime import date
from typing import Annotated

import typer

from deployments import console, tables
from deployments.cli.access import migrated_ledger
from deployments.cli.options import BatchSizeOption, JsonOption, RunKind, VerboseOption, parse_date
from ledger_db.errors import RunAtWork


def snapshot(
    business_date: Annotated[
        date | None,
        typer.Option("--date", parser=parse_date, metavar="DATE", help="The business date.", show_default="see --kind"),
    ] = None,
    kind: Annotated[
        RunKind,
        typer.Option(help="close: the official end of day, of the last date that has ended; interim: as of now."),
    ] = RunKind.close,
    batch_size: BatchSizeOption = None,
    verbose: VerboseOption = False,
) -> None:
    """Snapshot every balance once for one business date, and certify the figures.

    A second call for the same date resumes what is unfinished and changes nothing that is certified.
    """
    from deployments.jobs import snapshot_now

    migrated_ledger()
    snapshot_now(business_date=business_date, kind=kind.value, batch_size=batch_size, verbose=verbose)


def close(
    since: Annotated[
        date | None,
        typer.Option(
            parser=parse_date, metavar="DATE", help="The first date to close, on a ledger that has no close yet.",
            show_default="only the last date that has ended",
        ),
    ] = None,
    until: Annotated[
        date | None,
        typer.Option(
            parser=parse_date, metavar="DATE", help="The last date to close.",
            show_default="the last one that has ended",
        ),
    ] = None,
    batch_size: BatchSizeOption = None,
    verbose: VerboseOption = False,
) -> None:  # fmt: skip
    """Run the end of day now: close every missing business date in order, and report what arrived late."""
    from deployments.jobs import end_of_day_now

    migrated_ledger()
    end_of_day_now(since=since, until=until, batch_size=batch_size, verbose=verbose)


def runs(
    limit: Annotated[int, typer.Option(min=1, max=10_000, help="How many.")] = 50,
    kind: Annotated[RunKind | None, typer.Option(help="Only this kind.", show_default="both")] = None,
    as_json: JsonOption = False,
) -> None:
    """List the runs, newest first: date, kind, status, cut-off instant, count, difference, why one is not certified."""
    from ledger_db.close.runs import list_runs
    from ledger_db.close.totals import totals_of

    with migrated_ledger().connect() as connection:
        listed = [
            (run, totals_of(connection, run.run_id))
            for run in list_runs(connection, limit=limit, kind=kind.value if kind else None)
        ]
    if as_json:
        from deployments import wire

        console.write_json([wire.Run.of(run, totals) for run, totals in listed])
    else:
        console.out().print(tables.runs_table(listed))


def abandon(
    run_id: Annotated[int, typer.Argument(help="The run, as ledger-eod runs lists it.")],
    yes: Annotated[bool, typer.Option("--yes", help="Do it; without it only what would be done is shown.")] = False,
) -> None:
    """Give up an open run: remove its rows, so that its date is opened again with a new cut.

    A certified run is evidence and stays.
    """
    from ledger_db.close.opening import abandon_run
    from ledger_db.close.runs import find_run, hold_run

    engine = migrated_ledger()
    with hold_run(engine, run_id) as mine:
        if not mine:
            raise RunAtWork(f"another process is at work on run {run_id}: stop it first")
        with engine.begin() as connection:
            run = abandon_run(connection, run_id) if yes else find_run(connection, run_id)
    out = console.out()
    if yes:
        out.print(f"{run.name} is {run.status}; the next close or snapshot of {run.business_date} starts again")
    elif run.status == "open":
        out.print(f"{run.name} would be abandoned and its snapshots removed; repeat with --yes to do it")
    else:
        out.print(f"{run.name} is {run.status}: there is nothing to abandon")
