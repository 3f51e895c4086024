"""The command line ``ledger-eod``: migrate, load, close, look, serve.

Exit codes: 0 done, 1 a fact of the ledger or a job that failed, 2 wrong usage or configuration, 3 another process is at
work, 4 somebody must approve. Every error is one line on standard error. Prefect is imported only by commands that need
it: it takes a second.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, date, datetime, timedelta
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from sqlalchemy import Connection, Engine
from sqlalchemy.exc import DBAPIError

from deployments import display
from ledger_db.books.csv_import import OPTIONAL_COLUMNS, REQUIRED_COLUMNS, import_transactions
from ledger_db.core.calendar import BusinessCalendar
from ledger_db.errors import BadImport, ConfigurationError, LedgerError, NotMigrated, RunAtWork, first_line
from ledger_db.server.connections import display_url, ledger_engine, reachable
from ledger_db.settings import Settings, get_settings

if TYPE_CHECKING:
    from prefect.client.orchestration import SyncPrefectClient

    from ledger_db.correction.reconstructions import Reconstruction

DONE, FAILED, WRONG_USAGE, AT_WORK, NEEDS_APPROVAL = 0, 1, 2, 3, 4
INTERRUPTED = 130
TERMINATED = 143

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


class RunKind(StrEnum):
    """What ``snapshot --kind`` takes."""

    close = "close"
    interim = "interim"


class ReconstructionSelection(StrEnum):
    """What ``reconstruct --select`` takes."""

    given = "given"
    discrepancies = "discrepancies"
    requested = "requested"


class VerificationScope(StrEnum):
    """What ``verify --scope`` takes."""

    since_close = "since-close"
    from_genesis = "from-genesis"
    checksums = "checksums"


def _date(text: str) -> date:
    try:
        return date.fromisoformat(text)
    except ValueError:
        raise typer.BadParameter(f"{text!r} is not a date; write for instance 2026-01-31") from None


def _instant(text: str) -> datetime:
    """An instant with its offset, or the instant at which a business date closes."""
    try:
        return _calendar().closes_at(date.fromisoformat(text))
    except ValueError:
        pass
    try:
        instant = datetime.fromisoformat(text)
    except ValueError:
        raise typer.BadParameter(
            f"{text!r} is not an instant; write for instance 2026-01-31T23:59:59+01:00, or a business date"
        ) from None
    if instant.tzinfo is None:
        raise typer.BadParameter(
            f"{text} has no offset, so it is a different instant in every zone; write for instance {text}+00:00"
        )
    return instant.astimezone(UTC)


def _calendar() -> BusinessCalendar:
    return get_settings().calendar


JsonOption = Annotated[bool, typer.Option("--json", help="JSON: amounts as strings in minor units, instants in UTC.")]
BatchSizeOption = Annotated[
    int | None,
    typer.Option(
        "--batch-size", min=1, max=1_000_000, help="Balances in one database transaction.", show_default="configured"
    ),
]
VerboseOption = Annotated[bool, typer.Option("--verbose", "-v", help="Show Prefect's log as well.")]
CurrencyOption = Annotated[str | None, typer.Option("--currency", help="Only this currency.")]


@app.callback()
def _every_command(
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")] = False,
) -> None:
    _debug.on = debug


class _Debug:
    on = False


_debug = _Debug()


def _ledger() -> Engine:
    """The configured ledger, reachable and migrated; the embedded one is brought up to date on the way."""
    from ledger_db.attach.migrate import migrate, require_current, schema_state

    settings = get_settings()
    engine = ledger_engine()
    reachable(engine)
    with engine.connect() as connection:
        if settings.database_url is not None:
            require_current(connection)
            return engine
        is_current = schema_state(connection).is_current
    if not is_current:
        migrate(engine)
    return engine


@app.command("migrate")
def migrate_command() -> None:
    """Bring the database to this version's schema: make the ledger's tables, or adopt Blnk's.

    Safe on a live ledger and safe to repeat; a second call changes nothing.
    """
    from ledger_db.attach.migrate import migrate

    engine = ledger_engine()
    reachable(engine)
    state = migrate(engine)
    where = display_url(engine.url)
    was = "is already" if state.is_current else f"was at {state.current or 'nothing'}, is now"
    display.out().print(f"the schema of {where} {was} at {state.head}")


@app.command("generate")
def generate_command(
    *,
    balances: Annotated[int, typer.Option(min=1, help="Balances to make.")] = 10_000,
    transactions: Annotated[int, typer.Option(min=0, help="Transactions to record.")] = 100_000,
    days: Annotated[int, typer.Option(min=1, help="Days over which they are recorded.")] = 30,
    first_date: Annotated[
        datetime | None,
        typer.Option(formats=["%Y-%m-%d"], help="The first of these days.", show_default="the last one is yesterday"),
    ] = None,
    seed: Annotated[int, typer.Option(help="The same seed makes the same ledger.")] = 1,
    currencies: Annotated[str, typer.Option(help="Currencies, separated by commas.")] = "USD,EUR,GBP",
    hot_balances: Annotated[int, typer.Option(min=0, help="Balances that take part in many transactions.")] = 10,
    late_share: Annotated[float, typer.Option(min=0, max=1, help="Share recorded after its effective day.")] = 0.02,
    inflight_share: Annotated[float, typer.Option(min=0, max=1, help="Share that is held first.")] = 0.05,
) -> None:
    """Load a synthetic ledger: hot and quiet balances, holds, refunds, late and future-dated rows.

    Deterministic by seed, loaded by COPY. Meant for an empty ledger; another seed adds to what is there.
    """
    import time

    from ledger_db.books.generator import GeneratorSpec, analyze, generate

    spec = GeneratorSpec(
        first_date=first_date.date() if first_date else datetime.now(UTC).date() - timedelta(days=days),
        balances=balances,
        transactions=transactions,
        days=days,
        seed=seed,
        currencies=tuple(currency.strip() for currency in currencies.split(",") if currency.strip()),
        hot_balances=hot_balances,
        late_share=late_share,
        inflight_share=inflight_share,
    )
    engine = _ledger()
    started = time.monotonic()
    with display.err().status("loading"):
        with engine.begin() as connection:
            made = generate(connection, spec)
        analyze(engine)
    seconds = time.monotonic() - started
    display.out().print(
        f"{made.balance_count:,} balances and {made.transaction_count:,} transactions recorded from {spec.first_date} "
        f"to {spec.end_date - timedelta(days=1)}, in {seconds:.1f} s"
    )


@app.command(
    "import",
    help="Load a CSV of transactions into the ledger, all of it or nothing; bad rows are listed with their line "
    "numbers.\n\n"
    f"UTF-8 with a header. Columns: {', '.join(REQUIRED_COLUMNS)}; optional: {', '.join(OPTIONAL_COLUMNS)}. Amounts "
    "are in major units (1200.00), instants ISO 8601 with an offset; docs/import.md says what each column takes.",
)
def import_command(
    file: Annotated[Path, typer.Argument(help="A CSV file of transactions.", exists=True, dir_okay=False)],
) -> None:
    """Load a CSV of transactions into the ledger."""
    engine = _ledger()
    with display.err().status("loading"), engine.begin() as connection:
        result = import_transactions(connection, file)
    display.out().print(
        f"{file}: {result.transaction_count:,} transactions recorded, {result.moved_balance_count:,} balances moved"
    )


@app.command("snapshot")
def snapshot_command(
    business_date: Annotated[
        date | None,
        typer.Option("--date", parser=_date, metavar="DATE", help="The business date.", show_default="see --kind"),
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

    _ledger()
    snapshot_now(business_date=business_date, kind=kind.value, batch_size=batch_size, verbose=verbose)


@app.command("close")
def close_command(
    since: Annotated[
        date | None,
        typer.Option(
            parser=_date, metavar="DATE", help="The first date to close, on a ledger that has no close yet.",
            show_default="only the last date that has ended",
        ),
    ] = None,
    until: Annotated[
        date | None,
        typer.Option(
            parser=_date, metavar="DATE", help="The last date to close.", show_default="the last one that has ended"
        ),
    ] = None,
    batch_size: BatchSizeOption = None,
    verbose: VerboseOption = False,
) -> None:  # fmt: skip
    """Run the end of day now: close every missing business date in order, and say what arrived late."""
    from deployments.jobs import end_of_day_now

    _ledger()
    end_of_day_now(since=since, until=until, batch_size=batch_size, verbose=verbose)


@app.command("verify")
def verify_command(
    *,
    balances: Annotated[
        list[str] | None, typer.Argument(metavar="[BALANCE]...", help="Only these: ids or indicators.")
    ] = None,
    scope: Annotated[
        VerificationScope,
        typer.Option(
            help="since-close: from the last close, costs the day; from-genesis: from the first posting; checksums: "
            "the closed days against what they stored of their rows."
        ),
    ] = VerificationScope.since_close,
    ledger_id: Annotated[str | None, typer.Option("--ledger", metavar="LEDGER_ID", help="Only this ledger.")] = None,
    currency: CurrencyOption = None,
    batch_size: BatchSizeOption = None,
    verbose: VerboseOption = False,
    as_json: JsonOption = False,
) -> None:
    """Compare stored balances with what proves them, and say what each difference comes from. Changes no balance.

    What is found does not make it fail: exit code 0 says that every balance has its verdict.
    """
    from deployments.jobs import verify_now
    from ledger_db.books.names import find_balance_id

    with _ledger().connect() as connection:
        balance_ids = [find_balance_id(connection, name, currency=currency) for name in balances or []]
    report = verify_now(
        scope=scope.value, ledger_id=ledger_id, currency=currency, balance_ids=balance_ids or None,
        batch_size=batch_size, verbose=verbose,
    )  # fmt: skip
    if as_json:
        display.write_json(display.verification_json(report.verification, report.discrepancies, report.totals))
        return
    console = display.out()
    if report.discrepancies:
        console.print(display.discrepancies_table(report.discrepancies))
    console.print(display.verification_line(report.verification))


@app.command("discrepancies")
def discrepancies_command(
    cause: Annotated[str | None, typer.Option(help="Only this cause.", show_default="all")] = None,
    closed: Annotated[bool, typer.Option("--closed", help="Also those that are gone.")] = False,
    limit: Annotated[int, typer.Option(min=1, max=100_000, help="How many.")] = 50,
    as_json: JsonOption = False,
) -> None:
    """List the discrepancies that verification found, largest difference first, with cause, evidence and what to do."""
    from ledger_db.verification.discrepancies import list_discrepancies

    with _ledger().connect() as connection:
        found = list_discrepancies(connection, limit=limit, closed_too=closed, cause=cause)
    if as_json:
        display.write_json([display.discrepancy_json(each) for each in found])
    elif found:
        display.out().print(display.discrepancies_table(found))
    else:
        display.out().print("no open discrepancies")


@app.command("reconstruct")
def reconstruct_command(
    *,
    balances: Annotated[list[str] | None, typer.Argument(metavar="[BALANCE]...", help="Ids or indicators.")] = None,
    select: Annotated[
        ReconstructionSelection,
        typer.Option(
            help="given: these balances; discrepancies: those with open ones; requested: those whose meta_data has "
            "BLNK_RUN_RECONCILIATION: SOURCE."
        ),
    ] = ReconstructionSelection.given,
    currency: Annotated[str | None, typer.Option("--currency", help="Which @Name, when there are several.")] = None,
    apply: Annotated[
        bool, typer.Option("--apply", help="Correct what may be corrected; without it only said.")
    ] = False,
    reason: Annotated[
        str, typer.Option("--reason", help="Why, for the audit log.", show_default="the proposal's")
    ] = "",
    approve: Annotated[
        str | None, typer.Option("--approve", metavar="HASH", help="Approve the proposed figures of this hash.")
    ] = None,
    who: Annotated[str, typer.Option("--as", metavar="WHO", help="Who proposes, or with --approve who approves.")] = "",
    verbose: VerboseOption = False,
    as_json: JsonOption = False,
) -> None:
    """Recalculate balances from their postings: what was and what is; with --apply correct the stored rows.

    Corrections above LEDGER_APPROVAL_LIMITS and LEDGER_APPROVAL_BALANCES, or without a known cause, must be approved by
    somebody else than who proposed them: exit code 4 says so, and the proposal's hash is printed. The one who approves
    runs: ledger-eod reconstruct --apply --approve HASH --as WHO.
    """
    from deployments.jobs import ApprovalNeeded, reconstruct_now
    from ledger_db.books.names import find_balance_id

    if approve is not None and not (apply and who.strip()):
        raise typer.BadParameter("goes with --apply and --as WHO", param_hint="--approve")
    if approve is not None and select is not ReconstructionSelection.given:
        raise typer.BadParameter("is about the balances of the proposal: select none", param_hint="--approve")
    with _ledger().begin() as connection:
        balance_ids = [find_balance_id(connection, name, currency=currency) for name in balances or []]
    selection, proposed_by = select, who
    if approve is not None:
        with ledger_engine().begin() as connection:
            proposal, balance_ids = _approved(connection, approve, who, balance_ids)
            proposed_by, reason = proposal.proposed_by, reason or proposal.reason
        if proposal.selection == "requested":
            selection, balance_ids = ReconstructionSelection.requested, []
    try:
        report = reconstruct_now(
            balance_ids=balance_ids or None, select=selection.value, apply=apply, reason=reason,
            proposed_by=proposed_by, verbose=verbose,
        )  # fmt: skip
    except ApprovalNeeded as needed:
        _show_reconstruction(needed.report, as_json=as_json)
        display.err().print(display.approval_line(needed.report.reconstruction, approved_others=approve is not None))
        raise typer.Exit(NEEDS_APPROVAL) from None
    _show_reconstruction(report, as_json=as_json)


def _approved(
    connection: Connection, figures_hash: str, who: str, named: list[str]
) -> tuple[Reconstruction, list[str]]:
    """The proposal of this hash, approved, and the balances it would correct; a refusal is kept too."""
    from ledger_db.correction.proposals import find_proposal
    from ledger_db.correction.reconstructions import results_of
    from ledger_db.errors import ApprovalRefused
    from ledger_db.evidence.approvals import decide

    proposal = find_proposal(connection, figures_hash)
    found = results_of(connection, proposal.reconstruction_id)
    proposed = [result.balance_id for result in found if result.verdict not in ("agrees", "refused")]
    if named and set(named) != set(proposed):
        raise ApprovalRefused(
            f"{proposal.name}, whose figures have this hash, is about other balances: {', '.join(proposed[:3])}"
            f"{' …' if len(proposed) > 3 else ''}; name those or none"
        )
    decided = decide(connection, proposal, decision="approved", decided_by=who, channel="command line")
    if decided.decision == "refused":
        connection.commit()
        raise ApprovalRefused(decided.remark)
    return proposal, proposed


def _show_reconstruction(report: Any, *, as_json: bool) -> None:
    if as_json:
        display.write_json(display.reconstruction_json(report.reconstruction, report.results))
        return
    console = display.out()
    console.print(display.reconstruction_table(report.results))
    console.print(display.reconstruction_line(report.reconstruction, report.results))


@app.command("corrections")
def corrections_command(
    balance: Annotated[
        str | None, typer.Argument(metavar="[BALANCE]", help="Only this one: an id or an indicator.")
    ] = None,
    currency: Annotated[str | None, typer.Option("--currency", help="Which @Name, when there are several.")] = None,
    limit: Annotated[int, typer.Option(min=1, max=100_000, help="How many.")] = 50,
    as_json: JsonOption = False,
) -> None:
    """List the corrections that were made, newest first: before, after, cause, reason, who proposed, who approved."""
    from ledger_db.books.names import find_balance_id
    from ledger_db.correction.corrections import list_corrections

    with _ledger().connect() as connection:
        balance_id = None if balance is None else find_balance_id(connection, balance, currency=currency)
        found = list_corrections(connection, limit=limit, balance_id=balance_id)
    if as_json:
        display.write_json([display.correction_json(each) for each in found])
    elif found:
        display.out().print(display.corrections_table(found))
    else:
        display.out().print("no corrections")


@app.command("declare-opening")
def declare_opening_command(
    balance: Annotated[str, typer.Argument(metavar="BALANCE", help="A balance's id, or an indicator (@Name).")],
    declared_by: Annotated[str, typer.Option("--as", metavar="WHO", help="Who declares it.")],
    reason: Annotated[str, typer.Option("--reason", help="Why its stored amounts are right.")],
    currency: Annotated[str | None, typer.Option("--currency", help="Which @Name, when there are several.")] = None,
    yes: Annotated[bool, typer.Option("--yes", help="Do it; without it only said what would be declared.")] = False,
) -> None:
    """Declare what a balance holds beyond its postings: imported amounts, histories that cannot be proved.

    Verification adds it to the postings from then on. It changes no balance, and a declaration stays as evidence.
    """
    from ledger_db.books.names import find_balance_id
    from ledger_db.verification.opening_balances import declare_opening_balance

    with _ledger().connect() as connection:
        balance_id = find_balance_id(connection, balance, currency=currency)
        declared = declare_opening_balance(connection, balance_id, declared_by=declared_by, reason=reason)
        if yes:
            connection.commit()
        else:
            connection.rollback()
    credit, debit, inflight_credit, inflight_debit = (display.figure(amount) for amount in declared.amounts)
    what = (
        f"{balance_id}: credit {credit}, debit {debit}, inflight credit {inflight_credit}, inflight debit "
        f"{inflight_debit} beyond its postings, minor units"
    )
    display.out().print(f"declared {what}" if yes else f"would declare {what}; repeat with --yes to do it")


@app.command("abandon")
def abandon_command(
    run_id: Annotated[int, typer.Argument(help="The run, as ledger-eod runs lists it.")],
    yes: Annotated[bool, typer.Option("--yes", help="Do it; without it only said what would be done.")] = False,
) -> None:
    """Give up an open run: remove its rows, so that its date is opened anew with a new cut.

    A certified run is evidence and stays.
    """
    from ledger_db.close.opening import abandon_run
    from ledger_db.close.runs import find_run, hold_run

    engine = _ledger()
    with hold_run(engine, run_id) as mine:
        if not mine:
            raise RunAtWork(f"another process is at work on run {run_id}: stop it first")
        with engine.begin() as connection:
            run = abandon_run(connection, run_id) if yes else find_run(connection, run_id)
    if yes:
        display.out().print(
            f"{run.name} is {run.status}; the next close or snapshot of {run.business_date} starts anew"
        )
    elif run.status == "open":
        display.out().print(f"{run.name} would be abandoned and its snapshots removed; repeat with --yes to do it")
    else:
        display.out().print(f"{run.name} is {run.status}: there is nothing to abandon")


@app.command("balance-at")
def balance_at_command(
    *,
    balance: Annotated[str, typer.Argument(metavar="BALANCE", help="A balance's id, or an indicator (@Name).")],
    at: Annotated[
        datetime,
        typer.Option(
            "--at", parser=_instant, metavar="INSTANT",
            help="What is effective before it counts. An offset or Z is required: 2026-01-31T18:00:00+01:00. A date "
            "alone, 2026-01-31, is the close of that business date in the configured calendar (LEDGER_TIME_ZONE, "
            "LEDGER_CUT_OFF).",
        ),
    ],
    known_at: Annotated[
        str | None,
        typer.Option(
            "--known-at", metavar="DATE|RUN_ID", help="As known at the close of this date, or at this run.",
            show_default="as known now",
        ),
    ] = None,
    from_source: Annotated[
        bool, typer.Option("--from-source", help="Sum from the first posting; the answer is the same.")
    ] = False,
    currency: Annotated[str | None, typer.Option("--currency", help="Which @Name, when there are several.")] = None,
    as_json: JsonOption = False,
) -> None:  # fmt: skip
    """One balance at an instant, posted and inflight, as known now or as known at an earlier close."""
    from ledger_db.books.names import find_balance_id
    from ledger_db.close.runs import certified_close_of
    from ledger_db.history.balance_at import balance_at

    knowledge = None if known_at is None else _run_or_date(known_at)
    with _ledger().connect() as connection:
        run_id = certified_close_of(connection, knowledge).run_id if isinstance(knowledge, date) else knowledge
        balance_id = find_balance_id(connection, balance, currency=currency)
        answer = balance_at(connection, balance_id, at, known_at=run_id, from_source=from_source)
    if as_json:
        display.write_json(display.balance_at_json(answer))
    else:
        display.out().print(display.balance_at_table(answer))


def _run_or_date(text: str) -> int | date:
    if text.isdecimal() and len(text) < 8:  # eight digits are a date in ISO's basic form
        return int(text)
    try:
        return date.fromisoformat(text)
    except ValueError:
        if text.isdecimal():
            return int(text)
        raise typer.BadParameter(
            f"{text!r} is neither a date nor a run; write for instance 2026-01-31, or a number of ledger-eod runs",
            param_hint="--known-at",
        ) from None


@app.command("balances")
def balances_command(
    currency: CurrencyOption = None,
    limit: Annotated[int, typer.Option(min=1, max=100_000, help="How many.")] = 50,
    after: Annotated[
        str | None, typer.Option(metavar="BALANCE", help="Go on after this balance, the last of the page before.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """List balances as the ledger stores them: currency, balance, inflight, owner or indicator, created."""
    from ledger_db.books.accounts import list_balances
    from ledger_db.books.names import find_balance_id

    with _ledger().connect() as connection:
        after_key = 0
        if after is not None:
            balance_id = find_balance_id(connection, after, currency=currency)
            after_key = list_balances(connection, limit=1, balance_id=balance_id)[0].balance_key
        listed = list_balances(connection, limit=limit, after_key=after_key, currency=currency)
    if as_json:
        display.write_json([display.balance_json(balance) for balance in listed])
        return
    console = display.out()
    console.print(display.balances_table(listed))
    if len(listed) == limit:
        console.print(f"there may be more: --after {listed[-1].balance_id}")


@app.command("runs")
def runs_command(
    limit: Annotated[int, typer.Option(min=1, max=10_000, help="How many.")] = 50,
    kind: Annotated[RunKind | None, typer.Option(help="Only this kind.", show_default="both")] = None,
    as_json: JsonOption = False,
) -> None:
    """List the runs, newest first: date, kind, status, cut-off instant, count, difference, why one is not certified."""
    from ledger_db.close.runs import list_runs
    from ledger_db.close.totals import totals_of

    with _ledger().connect() as connection:
        listed = list_runs(connection, limit=limit, kind=kind.value if kind else None)
        runs = [(run, totals_of(connection, run.run_id)) for run in listed]
    if as_json:
        display.write_json([display.run_json(run, totals) for run, totals in runs])
    else:
        display.out().print(display.runs_table(runs))


@app.command("deploy")
def deploy_command() -> None:
    """Register every deployment of prefect.yaml, with the ledger's time zone, on the configured Prefect server.

    Makes the work pool "ledger-eod" unless it is there. Without PREFECT_API_URL: on the local server.
    """
    from deployments.orchestrator.serving import deploy_all

    settings = get_settings()
    with display.err().status("registering the deployments"):
        done = deploy_all(settings)
    display.out().print(done)


automations_app = typer.Typer(
    help="What Prefect's server does by itself: report on discrepancies, tell of late, failed and silent runs and of a "
    "night without an end of day. Notifications are warnings in the log, or go through LEDGER_NOTIFICATION_BLOCK.",
    no_args_is_help=True,
    rich_markup_mode=None,
)
app.add_typer(automations_app, name="automations")


@contextmanager
def _prefect() -> Iterator[SyncPrefectClient]:
    """A client of the configured Prefect server, else of the local one, which is started for it."""
    from deployments.orchestrator.server import orchestrator

    with display.err().status("starting the Prefect server"), orchestrator():
        from prefect.client.orchestration import get_client

        with get_client(sync_client=True) as client:
            yield client


@automations_app.command("install")
def automations_install_command() -> None:
    """Make every automation as it is declared, on the configured Prefect server, else on the local one.

    A second call changes nothing, and what a person has switched off stays off. The deployments come first: deploy.
    """
    waiting = False
    with _prefect() as client:
        from deployments.orchestrator.automations import install

        for standing, outcome in install(client, get_settings()):
            waiting = waiting or standing.state == "waiting"
            display.out().print(display.automation_line(standing.name, outcome, enabled=standing.enabled))
    if waiting:
        raise ConfigurationError("not every automation is installed: run ledger-eod deploy, then this again")


@automations_app.command("list")
def automations_list_command(as_json: JsonOption = False) -> None:
    """List the automations: whether each is installed as it is declared, whether it is switched on, what it does."""
    with _prefect() as client:
        from deployments.orchestrator.automations import standings

        found = list(standings(client, get_settings()))
    if as_json:
        display.write_json([each.as_json() for each in found])
        return
    shown = display.table("automation", "state", "enabled", "what it does", wrapped=("state", "what it does"))
    for each in found:
        state = f"waits for {each.waiting_for}" if each.waiting_for else each.state
        shown.add_row(each.name, state, {None: "", True: "yes", False: "no"}[each.enabled], each.description)
    display.out().print(display.titled("Automations", shown))


@automations_app.command("remove")
def automations_remove_command() -> None:
    """Delete the project's automations from the Prefect server; others stay, and install makes them anew."""
    with _prefect() as client:
        from deployments.orchestrator.automations import remove

        removed = remove(client, get_settings())
    for name in removed:
        display.out().print(f"{name}: removed")
    if not removed:
        display.out().print("none is installed")


@app.command("serve")
def serve_command(
    port: Annotated[int, typer.Option(min=1, max=65_535, help="Port of the server on 127.0.0.1.")] = 4200,
) -> None:
    """Run a local Prefect server with its UI, register deployments and automations and work on them, until Ctrl-C.

    Earlier runs of this data folder, those of ledger-eod close and of the demo too, are there to be seen.
    """
    from deployments.orchestrator.serving import serve

    _ledger()
    serve(get_settings(), port=port)


@app.command("doctor")
def doctor_command(as_json: JsonOption = False) -> None:
    """Say what is configured, reachable, migrated and missing; changes nothing. Exit code 2 when something is wrong."""
    from deployments.doctor import examine, findings_table, settings_table

    settings: Settings = get_settings()
    findings = examine(settings)
    if as_json:
        display.write_json([vars(finding) for finding in findings])
    else:
        console = display.out()
        console.print(settings_table(settings))
        console.print(findings_table(findings))
    if any(finding.status == "wrong" for finding in findings):
        raise typer.Exit(WRONG_USAGE)


def run(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code; an error is one line on standard error."""
    command = typer.main.get_command(app)
    return guarded(lambda: command.main(args=arguments, prog_name="ledger-eod", standalone_mode=False))


def guarded(action: Callable[[], int | None]) -> int:
    """Do something for a person at a terminal: its exit code, and one line on standard error when it fails."""
    try:
        code = action()
        sys.stdout.flush()
        return _ended(code) if code == INTERRUPTED else int(code or DONE)  # typer's answer to Ctrl-C
    except BrokenPipeError:  # the reader, head for instance, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return DONE
    except (KeyboardInterrupt, typer.Abort):
        return _ended(INTERRUPTED)
    except SystemExit as end:
        if end.code != TERMINATED:
            raise
        return _ended(TERMINATED)
    except Exception as error:
        if _debug.on:
            raise
        found = str(error).splitlines()[1:] if isinstance(error, BadImport) else []  # a line for each bad row
        sys.stderr.write("\n".join([f"ledger-eod: {_one_line(error)}", *found]) + "\n")
        return _exit_code(error)


def _ended(code: int) -> int:
    sys.stderr.write("ledger-eod: interrupted; what is certified stays, the next call goes on from there\n")
    return code


def _one_line(error: Exception) -> str:
    usage: Callable[[], str] | None = getattr(error, "format_message", None)
    if usage is not None:
        message = usage()
    elif isinstance(error, DBAPIError):
        message = f"the database refused: {first_line(error)}"
    elif isinstance(error, BadImport):
        message = first_line(error)
    elif isinstance(error, LedgerError):
        message = str(error)
    else:
        message = f"{type(error).__name__}: {first_line(error)}; ledger-eod --debug COMMAND shows where"
    return " ".join(message.split())


def _exit_code(error: Exception) -> int:
    if isinstance(error, RunAtWork):
        return AT_WORK
    if isinstance(error, ConfigurationError | NotMigrated) or hasattr(error, "format_message"):
        return WRONG_USAGE
    return FAILED


def _terminate(*_: object) -> None:
    raise SystemExit(TERMINATED)


def end_when_told() -> None:
    """Let SIGTERM and a closed terminal end this process like Ctrl-C: the servers it started are stopped."""
    for ending in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(ending, _terminate)


def main() -> None:
    """The entry point of the installed ``ledger-eod``."""
    end_when_told()
    sys.exit(run())


if __name__ == "__main__":
    main()
