"""Closing the day: snapshots, the end of day, the list of runs, and giving one up."""

from __future__ import annotations

from datetime import UTC, date, datetime
from typing import TYPE_CHECKING, Annotated

import typer
from sqlalchemy import Connection

from deployments import console, tables
from deployments.cli.access import migrated_ledger
from deployments.cli.exits import ExitCode
from deployments.cli.options import BatchSizeOption, JsonOption, ListedKind, RunKind, VerboseOption, parse_date
from ledger_db.errors import ApprovalRefused, NotApproved, RunAtWork
from ledger_db.settings import get_settings

if TYPE_CHECKING:
    from ledger_db.close.runs import Run


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
    *,
    since: Annotated[
        date | None,
        typer.Option(
            parser=parse_date, metavar="DATE", help="The first date to close, on a ledger that has no close yet.",
            show_default="as was chosen before",
        ),
    ] = None,
    from_first_posting: Annotated[
        bool, typer.Option("--from-first-posting", help="The same, with the date of the ledger's first posting.")
    ] = False,
    only_last: Annotated[
        bool,
        typer.Option(
            "--only-last", help="The same, with the last date that has ended: what was posted before has no closes."
        ),
    ] = False,
    yes: Annotated[
        bool, typer.Option("--yes", help="Also where the first date looks mistyped, or is ten years back.")
    ] = False,
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
    """Run the end of day now: close every missing business date in order, and report what arrived late.

    On a ledger that has a history and no close yet, say once where its closes begin.
    """
    if from_first_posting and only_last:
        raise typer.BadParameter("goes without --from-first-posting", param_hint="--only-last")
    from deployments.jobs import end_of_day_now

    migrated_ledger()
    end_of_day_now(
        since=since, until=until, batch_size=batch_size, verbose=verbose, confirmed=yes,
        first_close="from-first-posting" if from_first_posting else "only-last" if only_last else "ask",
    )  # fmt: skip


def prepare_close(verbose: VerboseOption = False) -> None:
    """Count the transactions of the date in progress in advance, so that its close is done sooner.

    Figures are the same with it and without: the close takes over only what is still as it was.
    """
    from deployments.jobs import prepare_close_now

    migrated_ledger()
    prepare_close_now(verbose=verbose)


def runs(
    limit: Annotated[int, typer.Option(min=1, max=10_000, help="How many.")] = 50,
    kind: Annotated[ListedKind | None, typer.Option(help="Only this kind.", show_default="close and interim")] = None,
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
        what = "counts it itself" if run.kind == "preparation" else "starts again"
        out.print(f"{run.name} is {run.status}; the next close or snapshot of {run.business_date} {what}")
    elif run.status == "open":
        out.print(f"{run.name} would be abandoned and its snapshots removed; repeat with --yes to do it")
    else:
        out.print(f"{run.name} is {run.status}: there is nothing to abandon")


def digest_closes() -> None:
    """Digest the rows of closes from before version 0007 of the schema anew, so that no edit of them can be hidden.

    Only where their rows are still those of the checksums that they stored; the others are named, and exit code 1.
    """
    from ledger_db.close.later_digests import Fate, digest_old_closes

    out = console.out()
    with console.err().status("digesting old closes"):
        found = digest_old_closes(migrated_ledger())
    if not found:
        out.print("no close is that old")
    for fate, closes in found.items():
        dates = f"{closes[0].business_date}" + (f" to {closes[-1].business_date}" if len(closes) > 1 else "")
        out.print(f"{len(closes)} {'close' if len(closes) == 1 else 'closes'} ({dates}) {fate}")
    if Fate.differs in found:
        raise typer.Exit(ExitCode.FAILED)


def new_chain(
    reason: Annotated[str, typer.Option("--reason", help="Why a new chain begins, for the record.")] = "",
    approve: Annotated[
        str | None, typer.Option("--approve", metavar="HASH", help="Approve the differences of this hash.")
    ] = None,
    who: Annotated[str, typer.Option("--as", metavar="WHO", help="Who proposes, or with --approve who approves.")] = "",
    batch_size: BatchSizeOption = None,
    verbose: VerboseOption = False,
) -> None:
    """Begin a new chain of closes after a repair; without options show what is proposed, and every earlier one.

    For a ledger that the closes so far cannot be continued on, or whose counted rows were changed on purpose. The next
    business date is closed from the first posting on, and compared with the newest close per balance and transaction.
    Exit code 4: somebody else must approve the differences, with ledger-eod new-chain --approve HASH --as WHO. Only
    then is it certified. The closes so far stay as evidence; ledger-eod abandon gives a new chain up before that.
    """
    if approve is None and not reason and not who:
        _show_new_chains()
        return
    if not who.strip() or (approve is None) == (not reason.strip()):
        raise typer.BadParameter("goes with --reason to propose, or with --approve to approve", param_hint="--as")
    from deployments.jobs import snapshot_now

    with migrated_ledger().begin() as connection:
        run = _propose(connection, reason, who) if approve is None else _approve(connection, approve, who)
    try:
        snapshot_now(business_date=run.business_date, kind="close", batch_size=batch_size, verbose=verbose)
    except NotApproved:
        _show_new_chains(run.run_id)
        raise typer.Exit(ExitCode.NEEDS_APPROVAL) from None


def _propose(connection: Connection, reason: str, who: str) -> Run:
    from ledger_db.close.new_chain import open_new_chain

    return open_new_chain(
        connection, reason=reason, proposed_by=who, calendar=get_settings().calendar, now=datetime.now(UTC)
    )


def _approve(connection: Connection, figures_hash: str, who: str) -> Run:
    """Store the approval and return the close that it lets be certified. A refusal is stored too.

    Raises:
        ApprovalRefused: ``who`` must not approve it.
    """
    from ledger_db.close.new_chain import approve_new_chain
    from ledger_db.close.runs import find_run

    chain, approval = approve_new_chain(connection, figures_hash, decided_by=who, channel="command line")
    if approval.decision == "refused":
        connection.commit()
        raise ApprovalRefused(approval.remark)
    return find_run(connection, chain.run_id)


def _show_new_chains(run_id: int | None = None) -> None:
    """Every new chain, or that of one run; of the one that waits for an approval, what it differs by."""
    from ledger_db.close.new_chain import difference_count, differences_of, list_new_chains

    out = console.out()
    with migrated_ledger().connect() as connection:
        listed = [pair for pair in list_new_chains(connection) if run_id in (None, pair[1].run_id)]
        if not listed:
            out.print("no new chain was begun: every close goes on from the one before it")
            return
        out.print(tables.new_chains_table(listed))
        for chain, run in listed:
            if run.status == "open" and chain.figures_hash is not None:
                count = difference_count(connection, run.run_id)
                out.print(tables.chain_differences_table(differences_of(connection, run.run_id), count))
                out.print(tables.new_chain_line(chain))
