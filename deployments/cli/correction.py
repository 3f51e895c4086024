"""Correcting stored balances: propose, approve, apply, and the log of corrections."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer
from sqlalchemy import Connection

from deployments import console, tables
from deployments.cli.access import migrated_ledger
from deployments.cli.exits import ExitCode
from deployments.cli.options import JsonOption, NamedCurrencyOption, ReconstructionSelection, VerboseOption

if TYPE_CHECKING:
    from ledger_db.correction.driver import ReconstructionReport
    from ledger_db.correction.reconstructions import Reconstruction

NAMED_BALANCES = 3  # of a proposal, in a message


def reconstruct(
    *,
    balances: Annotated[list[str] | None, typer.Argument(metavar="[BALANCE]...", help="Ids or indicators.")] = None,
    select: Annotated[
        ReconstructionSelection,
        typer.Option(
            help="given: these balances; discrepancies: those with open ones; requested: those whose meta_data has "
            "BLNK_RUN_RECONCILIATION: SOURCE."
        ),
    ] = ReconstructionSelection.given,
    currency: NamedCurrencyOption = None,
    apply: Annotated[
        bool, typer.Option("--apply", help="Correct what may be corrected; without it nothing is changed.")
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
    if currency is not None and not balances:
        raise typer.BadParameter("says which of the named balances: name some", param_hint="--currency")
    engine = migrated_ledger()
    with engine.begin() as connection:
        balance_ids = [find_balance_id(connection, name, currency=currency) for name in balances or []]
    selection, proposed_by = select, who
    if approve is not None:
        with engine.begin() as connection:
            proposal, balance_ids = _approve(connection, approve, who, balance_ids)
            proposed_by, reason = proposal.proposed_by, reason or proposal.reason
        if proposal.selection == "requested":
            selection, balance_ids = ReconstructionSelection.requested, []
    try:
        report = reconstruct_now(
            balance_ids=balance_ids or None, select=selection.value, apply=apply, reason=reason,
            proposed_by=proposed_by, verbose=verbose,
        )  # fmt: skip
    except ApprovalNeeded as needed:
        _show(needed.report, as_json=as_json)
        console.err().print(tables.approval_line(needed.report.reconstruction, approved_others=approve is not None))
        raise typer.Exit(ExitCode.NEEDS_APPROVAL) from None
    _show(report, as_json=as_json)


def _approve(connection: Connection, figures_hash: str, who: str, named: list[str]) -> tuple[Reconstruction, list[str]]:
    """Approve the proposal of this hash; returns it and the balances it would correct. A refusal is stored too.

    Raises:
        ApprovalRefused: ``who`` must not approve it, or other balances are named than it is about.
    """
    from ledger_db.correction.proposals import find_proposal
    from ledger_db.correction.reconstructions import results_of
    from ledger_db.errors import ApprovalRefused
    from ledger_db.evidence.approvals import decide

    proposal = find_proposal(connection, figures_hash)
    found = results_of(connection, proposal.reconstruction_id)
    proposed = [result.balance_id for result in found if result.verdict not in ("agrees", "refused")]
    if named and set(named) != set(proposed):
        raise ApprovalRefused(
            f"{proposal.name}, whose figures have this hash, is about other balances: "
            f"{', '.join(proposed[:NAMED_BALANCES])}{' …' if len(proposed) > NAMED_BALANCES else ''}; "
            "name those or none"
        )
    decision = decide(connection, proposal, decision="approved", decided_by=who, channel="command line")
    if decision.decision == "refused":
        connection.commit()
        raise ApprovalRefused(decision.remark)
    return proposal, proposed


def _show(report: ReconstructionReport, *, as_json: bool) -> None:
    if as_json:
        from deployments import wire

        console.write_json(wire.Reconstruction.of(report.reconstruction, report.results))
        return
    out = console.out()
    out.print(tables.reconstruction_table(report.results))
    out.print(tables.reconstruction_line(report.reconstruction, report.results))


def corrections(
    balance: Annotated[
        str | None, typer.Argument(metavar="[BALANCE]", help="Only this one: an id or an indicator.")
    ] = None,
    currency: NamedCurrencyOption = None,
    limit: Annotated[int, typer.Option(min=1, max=100_000, help="How many.")] = 50,
    as_json: JsonOption = False,
) -> None:
    """List the corrections that were made, newest first: before, after, cause, reason, who proposed, who approved."""
    from ledger_db.books.names import find_balance_id
    from ledger_db.correction.corrections import list_corrections

    with migrated_ledger().connect() as connection:
        balance_id = None if balance is None else find_balance_id(connection, balance, currency=currency)
        found = list_corrections(connection, limit=limit, balance_id=balance_id)
    if as_json:
        from deployments import wire

        console.write_json([wire.Correction.of(each) for each in found])
    elif found:
        console.out().print(tables.corrections_table(found))
    else:
        console.out().print("no corrections")
