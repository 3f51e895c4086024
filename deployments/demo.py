"""Thirty generated days, closed by the real flow on a real Prefect server; then a repair: ``make demo``.

The ledger is loaded in two stages. Transactions of the second stage whose days are closed by then arrive late. Then a
stored balance is edited with SQL: verification finds it and names the cause, a reconstruction is proposed, approved by
somebody else, and applied. Everything is in a database of its own, ``demo``, which is created again each time: no other
ledger is touched.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Mapping
from datetime import UTC, date, datetime, timedelta
from typing import Any

from rich.console import Console
from sqlalchemy import Engine, create_engine, select, text
from sqlalchemy.engine import URL

from deployments import console, tables
from deployments.cli.exits import exit_on_sigterm, guarded
from deployments.jobs import completed, quiet_console, showing_progress
from deployments.orchestrator.server import orchestrator
from ledger_db.attach.migrate import migrate
from ledger_db.books.generator import GeneratorSpec, analyze, generate_balances, load_transactions
from ledger_db.books.tables import balances
from ledger_db.close.activity import LateArrival
from ledger_db.close.runs import certified_close_of
from ledger_db.correction.proposals import find_proposal
from ledger_db.evidence.approvals import decide
from ledger_db.history.balance_at import BalanceAt, balance_at
from ledger_db.server import embedded
from ledger_db.server.connections import dispose_engines, ledger_engine
from ledger_db.settings import Settings, get_settings

DATABASE = "demo"
DAYS = 30
FIRST_STAGE_DAYS = 20
BALANCES = 10_000
TRANSACTIONS = 100_000


def demo() -> None:
    """Load, close, load the rest, close the rest, show the results; then break a balance and repair it."""
    began = time.monotonic()
    out = console.out()
    settings = get_settings()
    _use(_fresh_database(settings))
    first_date = datetime.now(UTC).date() - timedelta(days=DAYS)
    spec = GeneratorSpec(first_date=first_date, balances=BALANCES, transactions=TRANSACTIONS, days=DAYS)
    closed_first = first_date + timedelta(days=FIRST_STAGE_DAYS - 1)
    engine = ledger_engine()
    migrate(engine)
    certificates: list[Any] = []
    with console.err().status("starting the Prefect server") as status:
        quiet_console()
        with orchestrator(local=True), showing_progress(status.update) as timings:
            from prefect import tags

            from flows.end_of_day import end_of_day

            for stage, (load_until, close_until) in enumerate(
                ((closed_first + timedelta(days=1), closed_first), (spec.end_date, None)), start=1
            ):
                status.update(f"stage {stage}: loading")
                _load(engine, spec, until=load_until, stage=stage, out=out)
                with tags(DATABASE):
                    result = completed(end_of_day(since=first_date, until=close_until, return_state=True))
                assert not isinstance(result, str)  # noqa: S101 - a fresh ledger has dates to close
                certificates += result.certificates
            _show_runs(out, certificates, timings)
            _show_late_entry(out, engine, certificates)
            status.update("editing a stored balance with SQL")
            _repair(out, engine)
    _show_where(out, settings, time.monotonic() - began)


def _fresh_database(settings: Settings) -> URL:
    """The embedded server's ``demo`` database, empty."""
    server = embedded.ensure_server(settings.data_folder)
    engine = create_engine(server.url("postgres"), isolation_level="AUTOCOMMIT")
    try:
        with engine.connect() as connection:
            connection.execute(text(f"DROP DATABASE IF EXISTS {DATABASE} WITH (FORCE)"))
            connection.execute(text(f"CREATE DATABASE {DATABASE}"))
    finally:
        engine.dispose()
    return server.url(DATABASE)


def _use(url: URL) -> None:
    """Make this process's ledger the demo's, whatever else is configured; its days are UTC days."""
    os.environ["LEDGER_DATABASE_URL"] = url.render_as_string(hide_password=False)
    os.environ["LEDGER_TIME_ZONE"] = "UTC"
    os.environ["LEDGER_CUT_OFF"] = "00:00"
    get_settings.cache_clear()
    dispose_engines()


def _load(engine: Engine, spec: GeneratorSpec, *, until: date, stage: int, out: Console) -> None:
    started = time.monotonic()
    since = spec.first_date if stage == 1 else spec.first_date + timedelta(days=FIRST_STAGE_DAYS)
    with engine.begin() as connection:
        balance_count = generate_balances(connection, spec) if stage == 1 else 0
        loaded = load_transactions(connection, spec, recorded_from=since, recorded_until=until)
    analyze(engine)
    also = f"{balance_count:,} balances and " if balance_count else ""
    out.print(
        f"stage {stage}: {also}{loaded.transaction_count:,} transactions recorded from {since} to "
        f"{until - timedelta(days=1)}, loaded in {time.monotonic() - started:.1f} s"
    )


def _show_runs(out: Console, certificates: list[Any], timings: dict[int, Mapping[str, Any]]) -> None:
    """A line for each day with credits minus debits of each currency, and the totals of the last day."""
    currencies = [total.currency for total in certificates[-1].totals]
    differences = [f"{currency} difference" for currency in currencies]
    figures = ["snapshots", *differences, "late", "seconds", "a second"]
    shown = console.table("business date", *figures, figures=figures)
    for certificate in certificates:
        timing = timings.get(certificate.run.run_id, {})
        shown.add_row(
            str(certificate.run.business_date),
            f"{certificate.run.snapshot_count:,}",
            *(tables.figure(total.difference) for total in certificate.totals),
            f"{sum(late.posting_count for late in certificate.late_totals):,}",
            f"{timing.get('duration_ms', 0) / 1000:.1f}",
            f"{timing.get('snapshots_per_second', 0):,}",
        )
    count = sum(certificate.run.snapshot_count or 0 for certificate in certificates)
    seconds = sum(timing["duration_ms"] for timing in timings.values()) / 1000
    remark = (
        f"difference: credits minus debits; late: postings for days that were closed before. {count:,} snapshots in "
        f"{seconds:.1f} s, {count / max(seconds, 0.001):,.0f} a second with everything that Prefect records"
    )
    out.print()
    out.print(console.titled(f"{len(certificates)} days closed and certified, minor units", shown, remark))
    out.print()
    out.print(tables.totals_table([(certificates[-1].run, certificates[-1].totals)]))


def _show_late_entry(out: Console, engine: Engine, certificates: list[Any]) -> None:
    """One balance at the close of a day, before and after an entry for that day arrived late."""
    collected, late = _largest_late_arrival(certificates)
    with engine.connect() as connection:
        closed = certified_close_of(connection, late.effective_date)
        answers: dict[str, BalanceAt] = {
            f"as known at that close, run {closed.run_id}": balance_at(
                connection, late.balance_id, closed.closes_at, known_at=closed.run_id
            ),
            "as known now": balance_at(connection, late.balance_id, closed.closes_at),
            "as known now, summed from the first posting": balance_at(
                connection, late.balance_id, closed.closes_at, from_source=True
            ),
        }
    shown = console.table("", "balance", "credits", "debits", figures=("balance", "credits", "debits"))
    for name, answer in answers.items():
        shown.add_row(
            name,
            tables.figure(answer.balance),
            tables.figure(answer.credit_balance),
            tables.figure(answer.debit_balance),
        )
    out.print()
    out.print(
        console.titled(
            f"{late.balance_id} at the close of {late.effective_date}, {late.currency} minor units",
            shown,
            f"{late.posting_count} posting{'s' if late.posting_count != 1 else ''} for {late.effective_date} arrived "
            f"after its close: {tables.figure(late.credit_balance)} credit, {tables.figure(late.debit_balance)} "
            f"debit, collected by the close of {collected}",
        )
    )


def _largest_late_arrival(certificates: list[Any]) -> tuple[date, LateArrival]:
    """A single late entry if there is one, the largest, and the business date whose close collected it."""
    arrivals: list[tuple[date, LateArrival]] = [
        (certificate.run.business_date, late)
        for certificate in certificates
        for late in certificate.late_arrivals
        if late.effect
    ]
    return max(arrivals, key=lambda found: (-found[1].posting_count, abs(found[1].effect)))


#: An edit by hand, in the wrong window.
EDIT = (
    "UPDATE blnk.balances SET credit_balance = credit_balance + 50000, balance = balance + 50000 "
    "WHERE balance_id = :balance_id"
)


def _repair(out: Console, engine: Engine) -> None:
    """Edit a stored balance with SQL; then find it, explain it, approve and make the correction, and prove it again."""
    from prefect import tags

    from flows.reconstruct_balances import reconstruct_balances
    from flows.verify_balances import verify_balances

    with engine.begin() as connection:
        balance_id = connection.scalar(
            select(balances.c.balance_id)
            .where(balances.c.indicator.is_(None))
            .order_by(balances.c.balance.desc())
            .limit(1)
        )
        connection.execute(text(EDIT), {"balance_id": balance_id})
    out.print()
    edit = EDIT.replace(":balance_id", f"'{balance_id}'")
    out.print(f'$ psql -c "{edit}"')
    with tags(DATABASE):
        found = completed(verify_balances("since-close", return_state=True)).report
    out.print()
    out.print(f"$ ledger-eod verify\n{tables.verification_line(found)}")
    out.print(tables.discrepancies_table(found.discrepancies))

    def reconstruct() -> Any:
        with tags(DATABASE):
            return completed(
                reconstruct_balances(
                    select="discrepancies", mode="apply", reason="edited by hand, no posting says so",
                    proposed_by="Ada", return_state=True,
                )
            )  # fmt: skip

    proposal = reconstruct().report
    out.print()
    out.print(
        '$ ledger-eod reconstruct --select discrepancies --apply --reason "edited by hand, no posting says so" --as Ada'
    )
    out.print(tables.reconstruction_table(proposal.results))
    out.print(tables.approval_line(proposal.reconstruction, approved_others=False))
    figures_hash = str(proposal.reconstruction.figures_hash)
    with engine.begin() as connection:
        decide(
            connection, find_proposal(connection, figures_hash), decision="approved", decided_by="Grace",
            channel="command line",
        )  # fmt: skip
    corrected = reconstruct()
    out.print()
    out.print(f"$ ledger-eod reconstruct --apply --approve {figures_hash[:16]} --as Grace")
    out.print(tables.reconstruction_line(corrected.reconstruction, corrected.results))
    out.print(tables.corrections_table(corrected.corrections))
    with tags(DATABASE):
        clean = completed(verify_balances("since-close", return_state=True)).report
    out.print(f"$ ledger-eod verify\n{tables.verification_line(clean)}")


def _show_where(out: Console, settings: Settings, seconds: float) -> None:
    out.print()
    out.print(f"done in {seconds:.0f} s. These runs in the Prefect UI, with their tables: make serve, then open")
    out.print("http://127.0.0.1:4200/runs (or ledger-eod serve --port PORT); Ctrl-C stops it")
    if not settings.data_folder.is_absolute() or "LEDGER_DATA_FOLDER" in os.environ:
        out.print(f"with LEDGER_DATA_FOLDER={settings.data_folder}")


def main() -> None:
    """The entry point of ``make demo``."""
    exit_on_sigterm()
    sys.exit(guarded(demo))


if __name__ == "__main__":
    main()
