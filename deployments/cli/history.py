"""History: a balance at any instant, as known now or at an earlier close."""

from __future__ import annotations

from datetime import date, datetime
from typing import Annotated

import typer

from deployments import console, tables
from deployments.cli.access import migrated_ledger
from deployments.cli.options import BalanceArgument, JsonOption, NamedCurrencyOption, parse_instant

DIGITS_OF_A_DATE = 8  # ISO's basic form, 20260131


def balance_at(
    *,
    balance: BalanceArgument,
    at: Annotated[
        datetime,
        typer.Option(
            "--at", parser=parse_instant, metavar="INSTANT",
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
    currency: NamedCurrencyOption = None,
    as_json: JsonOption = False,
) -> None:  # fmt: skip
    """One balance at an instant, posted and inflight, as known now or as known at an earlier close."""
    from ledger_db.books.names import find_balance_id
    from ledger_db.close.runs import certified_close_of
    from ledger_db.history.balance_at import balance_at

    knowledge = None if known_at is None else _run_or_date(known_at)
    with migrated_ledger().connect() as connection:
        run_id = certified_close_of(connection, knowledge).run_id if isinstance(knowledge, date) else knowledge
        balance_id = find_balance_id(connection, balance, currency=currency)
        answer = balance_at(connection, balance_id, at, known_at=run_id, from_source=from_source)
    if as_json:
        from deployments import wire

        console.write_json(wire.BalanceAt.of(answer))
    else:
        console.out().print(tables.balance_at_table(answer))


def _run_or_date(text: str) -> int | date:
    if text.isdecimal() and len(text) < DIGITS_OF_A_DATE:
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
