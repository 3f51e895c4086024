"""Verifying stored balances: compare them, list the discrepancies, declare what postings cannot prove."""

from __future__ import annotations

from typing import Annotated

import typer

from deployments import console, tables
from deployments.cli.access import migrated_ledger
from deployments.cli.options import (
    BalanceArgument,
    BatchSizeOption,
    CurrencyOption,
    JsonOption,
    NamedCurrencyOption,
    VerboseOption,
    VerificationScope,
)
from ledger_db.verification.causes import Cause


def verify(
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
    """Compare stored balances with what proves them, and report what each difference comes from. Changes no balance.

    Differences do not make it fail: exit code 0 means that every balance was compared.
    """
    from deployments.jobs import verify_now
    from ledger_db.books.names import find_balance_id

    with migrated_ledger().connect() as connection:
        balance_ids = [find_balance_id(connection, name, currency=currency) for name in balances or []]
    report = verify_now(
        scope=scope.value, ledger_id=ledger_id, currency=currency, balance_ids=balance_ids or None,
        batch_size=batch_size, verbose=verbose,
    )  # fmt: skip
    if as_json:
        from deployments import wire

        console.write_json(wire.Verification.of(report))
        return
    out = console.out()
    if report.discrepancies:
        out.print(tables.discrepancies_table(report.discrepancies))
    out.print(tables.verification_line(report))


def discrepancies(
    cause: Annotated[
        Cause | None,
        typer.Option(metavar="CAUSE", help="Only this cause, of docs/verification.md.", show_default="all"),
    ] = None,
    closed: Annotated[bool, typer.Option("--closed", help="Also those that are gone.")] = False,
    limit: Annotated[int, typer.Option(min=1, max=100_000, help="How many.")] = 50,
    as_json: JsonOption = False,
) -> None:
    """List the discrepancies that verification found, largest difference first, with cause, evidence and what to do."""
    from ledger_db.verification.discrepancies import list_discrepancies
    from ledger_db.verification.sweeps import require_finished

    with migrated_ledger().connect() as connection:
        found = list_discrepancies(
            connection, limit=limit, closed_too=closed, cause=None if cause is None else cause.value
        )
        if not found:
            require_finished(connection)
    if as_json:
        from deployments import wire

        console.write_json([wire.Discrepancy.of(each) for each in found])
    elif found:
        console.out().print(tables.discrepancies_table(found))
    else:
        of = "" if cause is None else f" of cause {cause.value}"
        console.out().print(f"no discrepancies{of}" if closed else f"no open discrepancies{of}")


def declare_opening(
    balance: BalanceArgument,
    declared_by: Annotated[str, typer.Option("--as", metavar="WHO", help="Who declares it.")],
    reason: Annotated[str, typer.Option("--reason", help="Why its stored amounts are right.")],
    currency: NamedCurrencyOption = None,
    yes: Annotated[bool, typer.Option("--yes", help="Do it; without it only what would be declared is shown.")] = False,
) -> None:
    """Declare what a balance holds beyond its postings: imported amounts, histories that cannot be proved.

    Verification adds it to the postings from then on. It changes no balance, and a declaration stays as evidence.
    """
    from ledger_db.books.names import find_balance_id
    from ledger_db.verification.opening_balances import declare_opening_balance

    with migrated_ledger().connect() as connection:
        balance_id = find_balance_id(connection, balance, currency=currency)
        declared = declare_opening_balance(connection, balance_id, declared_by=declared_by, reason=reason)
        if yes:
            connection.commit()
        else:
            connection.rollback()
    credit, debit, inflight_credit, inflight_debit = (tables.figure(amount) for amount in declared.amounts)
    what = (
        f"{balance_id}: credit {credit}, debit {debit}, inflight credit {inflight_credit}, inflight debit "
        f"{inflight_debit} beyond its postings, minor units"
    )
    console.out().print(f"declared {what}" if yes else f"would declare {what}; repeat with --yes to do it")
