"""Tables and lines for people. Amounts are minor units; only here they have thousands separators."""

from __future__ import annotations

import os
from collections.abc import Mapping
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import TYPE_CHECKING, Any

from pydantic import SecretStr
from rich.console import Group

from deployments.console import table, titled
from ledger_db.core.amounts import Amounts

if TYPE_CHECKING:
    from deployments.doctor import Finding
    from deployments.orchestrator.automations import Standing
    from ledger_db.books.accounts import StoredBalance
    from ledger_db.close.activity import LateTotals
    from ledger_db.close.new_chain import ChainDifference, ChainTransaction, NewChain
    from ledger_db.close.runs import Run
    from ledger_db.close.totals import RunTotals
    from ledger_db.correction.corrections import Correction
    from ledger_db.correction.recalculation import Result
    from ledger_db.correction.reconstructions import Reconstruction
    from ledger_db.history.balance_at import BalanceAt
    from ledger_db.settings import Settings
    from ledger_db.verification.discrepancies import Discrepancy
    from ledger_db.verification.driver import VerificationReport


NAMED_DATES = 5  # of a list, in a cell


def utc(instant: datetime) -> str:
    """An instant in UTC, ISO 8601 with ``Z``."""
    return instant.astimezone(UTC).isoformat().replace("+00:00", "Z")


def figure(amount: int | Decimal) -> str:
    """An amount for people: thousands separators, and a real minus sign."""
    return f"{amount:,}".replace("-", "−")


def balances_table(balances: list[StoredBalance]) -> Group:
    """Stored balance rows for people."""
    shown = table(
        "balance_id", "currency", "balance", "inflight", "owner or indicator", "created",
        figures=("balance", "inflight"),
    )  # fmt: skip
    for balance in balances:
        shown.add_row(
            balance.balance_id,
            balance.currency,
            figure(balance.balance),
            figure(balance.inflight_balance),
            balance.indicator or balance.owner or "",
            f"{balance.created_at:%Y-%m-%d %H:%M}",
        )
    return titled("Balances as stored, minor units", shown)


def balance_at_table(answer: BalanceAt) -> Group:
    """A balance at an instant for people."""
    known = "now" if answer.known_at is None else f"at the {answer.known_at.name}"
    if answer.from_source:
        proof = "summed from the first posting"
    elif answer.anchor is None:
        proof = "no certified close before it: summed from the first posting"
    else:
        proof = f"from the {answer.anchor.name}"
    if answer.correction_ids:
        numbers = ", ".join(str(number) for number in answer.correction_ids)
        proof += f"; the stored row held other amounts at that time, until correction {numbers}"
    shown = table(answer.currency, "balance", "credits", "debits", figures=("balance", "credits", "debits"))
    shown.add_row("posted", figure(answer.balance), figure(answer.credit_balance), figure(answer.debit_balance))
    shown.add_row(
        "inflight",
        figure(answer.inflight_balance),
        figure(answer.inflight_credit_balance),
        figure(answer.inflight_debit_balance),
    )
    return titled(f"{answer.balance_id} before {utc(answer.at)}, as known {known}, minor units", shown, proof)


def runs_table(runs: list[tuple[Run, list[RunTotals]]]) -> Group:
    """Runs for people, newest first."""
    shown = table(
        "run", "business date", "kind", "status", "closes at", "certified at", "snapshots", "difference", "remarks",
        figures=("run", "snapshots", "difference"), wrapped=("remarks",),
    )  # fmt: skip
    for run, totals in runs:
        remarks = ["caught up"] if run.caught_up else []
        remarks += [run.refusal] if run.refusal else []
        shown.add_row(
            str(run.run_id),
            str(run.business_date),
            run.kind,
            run.status,
            utc(run.closes_at),
            "" if run.certified_at is None else f"{run.certified_at.astimezone(UTC):%Y-%m-%d %H:%M:%SZ}",
            "" if run.snapshot_count is None else f"{run.snapshot_count:,}",
            differences(totals),
            "; ".join(remarks),
        )
    return titled("Runs, newest first", shown)


def differences(totals: list[RunTotals]) -> str:
    """Credits minus debits of every currency: one zero when the books balance in all of them."""
    off = [f"{total.currency} {figure(total.difference)}" for total in totals if total.difference]
    return ", ".join(off) or ("0" if totals else "")


def totals_table(closed: list[tuple[Run, list[RunTotals]]]) -> Group:
    """What each closed date adds up to, by currency."""
    shown = table(
        "business date", "currency", "balances", "credits", "debits", "difference", "itemised",
        figures=("balances", "credits", "debits", "difference", "itemised"),
    )  # fmt: skip
    for run, totals in closed:
        for position, total in enumerate(totals):
            shown.add_row(
                str(run.business_date) if position == 0 else "",
                total.currency,
                f"{total.balance_count:,}",
                figure(total.credit_balance),
                figure(total.debit_balance),
                figure(total.difference),
                figure(total.itemised_difference),
                end_section=position == len(totals) - 1,
            )
    return titled("Certified totals, minor units", shown)


def new_chains_table(listed: list[tuple[NewChain, Run]]) -> Group:
    """New chains for people, newest first, each with its first close."""
    shown = table(
        "run", "begins with", "status", "proposed by", "keys gone", "changed dates", "reason",
        figures=("run", "keys gone"), wrapped=("reason", "changed dates"),
    )  # fmt: skip
    for chain, run in listed:
        dates = chain.changed_dates or []
        named = ", ".join(str(day) for day in dates[:NAMED_DATES]) + (" …" if len(dates) > NAMED_DATES else "")
        shown.add_row(
            str(run.run_id),
            str(run.business_date),
            run.status,
            chain.proposed_by,
            "" if chain.gone_count is None else f"{chain.gone_count:,}",
            f"table made anew: {named or 'none'}" if chain.has_same_rows is False else named,
            chain.reason,
        )
    return titled("New chains of closes, newest first", shown)


def chain_differences_table(differences: list[ChainDifference], count: int) -> Group:
    """What a new chain differs by, largest first: the previous chain's last close, and the new chain on its date.

    edited or gone: what the transactions leave of the difference.
    """
    shown = table(
        "balance", "currency", "was", "is", "edited or gone", "inflight", "only in one of them",
        figures=("was", "is", "edited or gone", "inflight"), wrapped=("only in one of them",),
    )  # fmt: skip
    for each in differences:
        was, now, rest = (Amounts.of_parts(parts) for parts in (each.previous, each.present, each.rest))
        shown.add_row(
            each.balance_id,
            each.currency,
            figure(was.balance),
            figure(now.balance),
            figure(rest.balance),
            figure(now.minus(was).inflight_balance),
            "; ".join(_chain_transaction(item) for item in each.transactions),
        )
    more = f"{len(differences):,} of {count:,} balances are shown" if count > len(differences) else None
    return titled(f"{count:,} balances differ at the end of the last close, minor units", shown, more)


def _chain_transaction(item: ChainTransaction) -> str:
    amounts = Amounts.of_parts(item.parts)
    held = f", inflight {figure(amounts.inflight_balance)}" if amounts.inflight_balance else ""
    return f"{'only now' if item.is_added else 'only then'} {item.transaction_id} {figure(amounts.balance)}{held}"


def new_chain_line(chain: NewChain) -> str:
    """What a proposed new chain waits for."""
    return (
        f"somebody else than {chain.proposed_by} must approve these differences: "
        f"ledger-eod new-chain --approve {chain.figures_hash} --as WHO"
    )


def late_line(late: list[LateTotals], dates: list[date]) -> str:
    """How many postings arrived after their day was closed, in one line."""
    postings = sum(total.posting_count for total in late)
    if not postings:
        return "late arrivals: none"
    balances = sum(total.balance_count for total in late)
    days = f"{dates[0]}" if len(dates) == 1 else f"{dates[0]} to {dates[-1]}"
    return f"late arrivals: {postings:,} postings on {balances:,} balances, collected by the close of {days}"


def discrepancies_table(found: list[Discrepancy]) -> Group:
    """Discrepancies for people, largest difference first."""
    any_closed = any(each.closed_at is not None for each in found)
    columns = ["no.", "cause", "about", "currency", "gross difference", "action", "first seen"]
    columns += ["closed", "evidence"] if any_closed else ["evidence"]
    shown = table(*columns, figures=("no.", "gross difference"), wrapped=("about", "evidence"))
    for each in found:
        cells = [
            str(each.discrepancy_id), each.cause, each.subject, each.currency or "", figure(each.gross_difference),
            each.action, f"{each.first_seen_at:%Y-%m-%d %H:%M}",
        ]  # fmt: skip
        if any_closed:
            cells.append("" if each.closed_at is None else f"{each.closed_at:%Y-%m-%d %H:%M}")
        shown.add_row(*cells, evidence_text(each.evidence))
    return titled("Discrepancies, largest difference first, minor units", shown)


def evidence_text(evidence: Mapping[str, Any]) -> str:
    """Evidence for people: names and values, without amounts that are zero."""
    shown_values = []
    for name, value in evidence.items():
        shown = value
        if isinstance(value, dict):
            shown = ", ".join(f"{inner} {amount}" for inner, amount in value.items() if amount != "0")
        elif isinstance(value, list):
            shown = ", ".join(str(each) for each in value)
        shown_values.append(f"{name}: {shown}")
    return "; ".join(shown_values)


def verification_line(report: VerificationReport) -> str:
    """A verification's verdict in one line, and what it looked at."""
    verification, what = report.verification, report.subject
    if not verification.finding_count:
        closed = f"; {verification.closed_count} earlier closed" if verification.closed_count else ""
        return f"{verification.name}: {what}, nothing found{closed}"
    plural = "discrepancy" if verification.finding_count == 1 else "discrepancies"
    return (
        f"{verification.name}: {what}, {verification.finding_count} {plural}, {verification.opened_count} new, "
        f"{verification.closed_count} closed; {verification.explained_percent} % of gross volume explained"
    )


def reconstruction_table(results: list[Result]) -> Group:
    """What was and what is, largest difference first; inflight amounts and remarks where there are any."""
    inflight = any(result.previous.inflight_balance != result.recalculated.inflight_balance for result in results)
    remarks = any(result.remark for result in results)
    figures = ["was", "is", *(["inflight was", "inflight is"] if inflight else []), "gross difference"]
    columns = ["balance", "currency", "verdict", "cause", *figures, *(["remark"] if remarks else [])]
    shown = table(*columns, figures=figures, wrapped=("remark",))
    for result in results:
        amounts = [result.previous.balance, result.recalculated.balance]
        if inflight:
            amounts += [result.previous.inflight_balance, result.recalculated.inflight_balance]
        cells = [result.balance_id, result.currency, result.verdict, result.cause or ""]
        cells += [figure(amount) for amount in [*amounts, result.gross_difference]]
        shown.add_row(*cells, *([result.remark] if remarks else []))
    return titled("Balances as stored, and as their postings say, minor units", shown)


def reconstruction_line(reconstruction: Reconstruction, results: list[Result]) -> str:
    """The result of a reconstruction in one line, and what to do next."""
    counts = {
        verdict: sum(result.verdict == verdict for result in results)
        for verdict in ("agrees", "correct", "corrected", "refused", "stale")
    }
    words = {"agrees": "right", "correct": "to correct"}
    counted = ", ".join(f"{count:,} {words.get(verdict, verdict)}" for verdict, count in counts.items() if count)
    line = f"{reconstruction.name}: {counted or 'no balance to reconstruct'}"
    if reconstruction.mode == "report" and counts["correct"]:
        line += (
            f"; nothing was changed. Figures {str(reconstruction.figures_hash)[:16]}: repeat with --apply --reason WHY "
            "--as WHO to propose them, and with --approve HASH to approve them"
        )
    return line


def approval_line(reconstruction: Reconstruction, *, approved_others: bool) -> str:
    """Who must approve a proposal before it is applied, why, and with which command."""
    begin = "the figures are no longer those that were approved; " if approved_others else ""
    return (
        f"{begin}nothing was corrected: it needs the approval of somebody else than "
        f"{reconstruction.proposed_by or 'its proposer'} ({'; '.join(reconstruction.approval_reasons or [])}):\n"
        f"ledger-eod reconstruct --apply --approve {str(reconstruction.figures_hash)[:16]} --as WHO"
    )


def corrections_table(corrections: list[Correction]) -> Group:
    """The log for people, newest first."""
    figures = ("no.", "was", "is", "difference")
    shown = table(
        "no.", "balance", "currency", "was", "is", "difference", "cause", "reason", "proposed by", "approved by",
        "corrected", figures=figures, wrapped=("cause", "reason", "approved by", "corrected"),
    )  # fmt: skip
    for each in corrections:
        shown.add_row(
            str(each.correction_id),
            each.balance_id,
            each.currency,
            figure(each.previous.balance),
            figure(each.corrected.balance),
            figure(each.difference),
            each.cause,
            each.reason,
            each.proposed_by or "not named",
            each.approved_by or "below the limits",
            f"{each.corrected_at:%Y-%m-%d %H:%M}",
        )
    return titled("Corrections, newest first, minor units", shown)


def automation_line(name: str, outcome: str, *, enabled: bool | None) -> str:
    """What installing did to an automation, in one line."""
    return f"{name}: {outcome}" + ("; it is switched off and stays so" if enabled is False else "")


def automations_table(found: list[Standing]) -> Group:
    """The automations for people: whether each is installed as it is declared, and switched on."""
    shown = table("automation", "state", "enabled", "what it does", wrapped=("state", "what it does"))
    for each in found:
        state = f"waits for {each.waiting_for}" if each.waiting_for else each.state
        shown.add_row(each.name, state, {None: "", True: "yes", False: "no"}[each.enabled], each.description)
    return titled("Automations", shown)


def findings_table(findings: list[Finding]) -> Group:
    """The doctor's findings for people."""
    shown = table("what", "status", "detail", wrapped=("detail",))
    for finding in findings:
        style = {"ok": "green", "missing": "yellow", "wrong": "red"}[finding.status]
        shown.add_row(finding.subject, finding.status, finding.detail, style=style)
    return titled("Findings", shown)


def settings_table(settings: Settings) -> Group:
    """Every setting with its value, where it comes from and what it is for; a password is not shown."""
    from deployments.orchestrator.server import variable_of

    shown = table("variable", "value", "from", "meaning", wrapped=("value", "meaning"))
    for name, field in type(settings).model_fields.items():
        variable = variable_of(name)
        source = "default"
        if name in settings.model_fields_set:
            source = "environment" if variable in os.environ else ".env"
        shown.add_row(variable, _shown_setting(getattr(settings, name)), source, field.description)
    return titled("Settings", shown)


def _shown_setting(value: object) -> str:
    from ledger_db.server.connections import display_url, normalised

    if isinstance(value, SecretStr):
        return display_url(normalised(value.get_secret_value()))
    if isinstance(value, dict):
        return ", ".join(f"{key} {each}" for key, each in value.items()) or "none"
    return "unset" if value is None else str(value)
