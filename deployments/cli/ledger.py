"""The ledger itself: make or adopt it, load it, list its balances."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Annotated, Final

import typer

from deployments import console, tables
from deployments.cli.access import migrated_ledger, reachable_ledger
from deployments.cli.options import CurrencyOption, JsonOption
from ledger_db.books.csv_import import OPTIONAL_COLUMNS, REQUIRED_COLUMNS, import_transactions


def migrate() -> None:
    """Bring the database to this version's schema: make the ledger's tables, or adopt Blnk's.

    Safe on a live ledger and safe to repeat; a second call changes nothing.
    """
    from ledger_db.attach.migrate import migrate
    from ledger_db.server.connections import display_url

    engine = reachable_ledger(make=True)
    state = migrate(engine)
    where = display_url(engine.url)
    was = "is already" if state.is_current else f"was at {state.current or 'nothing'}, is now"
    console.out().print(f"the schema of {where} {was} at {state.head}")


def generate(
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
    engine = migrated_ledger(make=True)
    started = time.monotonic()
    with console.err().status("loading"):
        with engine.begin() as connection:
            made = generate(connection, spec)
        analyze(engine)
    seconds = time.monotonic() - started
    console.out().print(
        f"{made.balance_count:,} balances and {made.transaction_count:,} transactions recorded from {spec.first_date} "
        f"to {spec.end_date - timedelta(days=1)}, in {seconds:.1f} s"
    )


IMPORT_HELP: Final = (
    "Load a CSV of transactions into the ledger, all of it or nothing; bad rows are listed with their line numbers.\n\n"
    f"UTF-8 with a header. Columns: {', '.join(REQUIRED_COLUMNS)}; optional: {', '.join(OPTIONAL_COLUMNS)}. Amounts "
    "are in major units (1200.00), instants ISO 8601 with an offset; docs/import.md says what each column takes."
)


def import_file(
    file: Annotated[Path, typer.Argument(help="A CSV file of transactions.", exists=True, dir_okay=False)],
) -> None:
    """Load a CSV of transactions into the ledger."""
    engine = migrated_ledger(make=True)
    with console.err().status("loading"), engine.begin() as connection:
        result = import_transactions(connection, file)
    console.out().print(
        f"{file}: {result.transaction_count:,} transactions recorded, {result.moved_balance_count:,} balances moved"
    )


def balances(
    currency: CurrencyOption = None,
    limit: Annotated[int, typer.Option(min=1, max=100_000, help="How many.")] = 50,
    after: Annotated[
        str | None, typer.Option(metavar="BALANCE", help="Go on after this balance, the last of the page before.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """List balances as the ledger stores them: currency, balance, inflight, owner or indicator, created."""
    from ledger_db.books.accounts import list_balances, nothing_selected
    from ledger_db.books.names import find_balance_id

    with migrated_ledger().connect() as connection:
        after_key = 0
        if after is not None:
            balance_id = find_balance_id(connection, after, currency=currency)
            after_key = list_balances(connection, limit=1, balance_id=balance_id)[0].balance_key
        listed = list_balances(connection, limit=limit, after_key=after_key, currency=currency)
        if not listed and after is None:
            raise nothing_selected(connection, currency=currency)
    if as_json:
        from deployments import wire

        console.write_json([wire.StoredBalance.of(balance) for balance in listed])
        return
    out = console.out()
    if not listed:
        out.print(f"no balances after {after}")
        return
    out.print(tables.balances_table(listed))
    if len(listed) == limit:
        out.print(f"there may be more: --after {listed[-1].balance_id}")
