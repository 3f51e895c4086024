"""What the command line shows: tables for people, JSON with the reference ledger's field names for programs.

Amounts are minor units. In JSON they are strings, since a balance may be larger than what a JSON reader's number holds;
instants are UTC. Only tables have thousands separators.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Mapping
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any

from rich.cells import cell_len
from rich.console import Console, ConsoleOptions, Group, RenderableType, RenderResult
from rich.table import Table
from rich.text import Text

from ledger_db.books.accounts import StoredBalance
from ledger_db.close.activity import LateTotals
from ledger_db.close.runs import Run
from ledger_db.close.totals import RunTotals
from ledger_db.core.amounts import PART_COLUMNS, plain
from ledger_db.correction.corrections import Correction
from ledger_db.correction.recalculation import Result
from ledger_db.correction.reconstructions import Reconstruction
from ledger_db.history.balance_at import BalanceAt
from ledger_db.verification.discrepancies import CauseTotal, Discrepancy
from ledger_db.verification.sweeps import Verification

AMOUNTS = (
    "balance", "credit_balance", "debit_balance", "inflight_balance", "inflight_credit_balance",
    "inflight_debit_balance",
)  # fmt: skip

#: Results go to standard output, what happens meanwhile and errors to standard error.
PLAIN_WIDTH = 200
WRAPPED_WIDTH = 24  # columns that are wrapped are not narrowed further
RULE_WIDTH = 60


def out() -> Console:
    """Where results go. Without a terminal a table is as wide as it needs to be."""
    return _console(stderr=False)


def err() -> Console:
    """Where progress and errors go."""
    return _console(stderr=True)


def _console(*, stderr: bool) -> Console:
    is_terminal = (sys.stderr if stderr else sys.stdout).isatty()
    return Console(
        stderr=stderr, highlight=False, emoji=False, markup=False, width=None if is_terminal else PLAIN_WIDTH
    )


def write_json(value: Any) -> None:
    """One JSON document on standard output."""
    sys.stdout.write(json.dumps(value, indent=2, ensure_ascii=False) + "\n")
    sys.stdout.flush()


def utc(instant: datetime | None) -> str | None:
    """An instant in UTC, ISO 8601 with ``Z``; a naive one from the ledger's own tables is UTC."""
    if instant is None:
        return None
    aware = instant.replace(tzinfo=UTC) if instant.tzinfo is None else instant.astimezone(UTC)
    return aware.isoformat().replace("+00:00", "Z")


def exact(amount: int | Decimal) -> str:
    """An amount as text, without exponent or separators."""
    return f"{amount:f}" if isinstance(amount, Decimal) else str(amount)


def figure(amount: int | Decimal) -> str:
    """An amount for people: thousands separators, and a real minus sign."""
    return f"{amount:,}".replace("-", "−")


def table(*columns: str, figures: Iterable[str] = (), wrapped: Iterable[str] = ()) -> Table:
    """A table whose ``figures`` columns are right-aligned; only ``wrapped`` columns give way to a narrow terminal."""
    shown = Table(header_style="bold")
    right, soft = set(figures), set(wrapped)
    for column in columns:
        shown.add_column(column, justify="right" if column in right else "left", no_wrap=column not in soft)
    return shown


def titled(title: str, shown: Table, remark: str | None = None) -> Group:
    """A table under its title, which a narrow table does not break into lines, and over a remark."""
    parts: list[RenderableType] = [Text(title, style="bold"), _Fitting(shown)]
    return Group(*parts, *([] if remark is None else [Text(remark)]))


class _Fitting:
    """A table where it fits into the terminal, else row by row, a line for each cell: no amount is ever cut off."""

    def __init__(self, shown: Table) -> None:
        self.shown = shown

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """As rich asks for it."""
        if self._needed() <= options.max_width:
            yield self.shown
            return
        names = [str(column.header) for column in self.shown.columns]
        for cells in zip(*(column.cells for column in self.shown.columns), strict=True):
            row = Table.grid(padding=(0, 2))
            for name, cell in zip(names, cells, strict=True):
                if str(cell):
                    row.add_row(Text(name, style="bold"), str(cell))
            yield row
            yield Text("─" * min(options.max_width, RULE_WIDTH))

    def _needed(self) -> int:
        """The least width at which every column that is not wrapped keeps all of its text."""
        widths = []
        for column in self.shown.columns:
            longest = max(cell_len(str(cell)) for cell in [column.header, *column.cells])
            widths.append(longest if column.no_wrap else min(longest, WRAPPED_WIDTH))
        return sum(widths) + 3 * len(widths) + 1  # borders and the blanks beside them


def balance_json(balance: StoredBalance) -> dict[str, Any]:
    """A stored balance row with the reference ledger's field names."""
    return {
        "balance_id": balance.balance_id,
        "currency": balance.currency,
        **{name: exact(getattr(balance, name)) for name in AMOUNTS},
        "indicator": balance.indicator,
        "owner": balance.owner,
        "created_at": balance.created_at.isoformat(),  # without offset: the application writes its host's local time
    }


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


def balance_at_json(answer: BalanceAt) -> dict[str, Any]:
    """A balance at an instant with the reference ledger's field names."""
    known = answer.known_at
    return {
        "balance_id": answer.balance_id,
        "currency": answer.currency,
        **{name: exact(getattr(answer, name)) for name in AMOUNTS},
        "timestamp": utc(answer.at),
        "known_at": None if known is None else {"run_id": known.run_id, "business_date": str(known.business_date)},
        "from_source": answer.from_source,
        "correction_ids": list(answer.correction_ids),
    }


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
        proof += f"; the stored row said something else at that time, which correction {numbers} ended"
    shown = table(answer.currency, "balance", "credits", "debits", figures=("balance", "credits", "debits"))
    shown.add_row("posted", figure(answer.balance), figure(answer.credit_balance), figure(answer.debit_balance))
    shown.add_row(
        "inflight",
        figure(answer.inflight_balance),
        figure(answer.inflight_credit_balance),
        figure(answer.inflight_debit_balance),
    )
    return titled(f"{answer.balance_id} before {utc(answer.at)}, as known {known}, minor units", shown, proof)


def run_json(run: Run, totals: list[RunTotals]) -> dict[str, Any]:
    """A run and what it adds up to."""
    return {
        "run_id": run.run_id,
        "business_date": str(run.business_date),
        "kind": run.kind,
        "status": run.status,
        "opens_at": utc(run.opens_at),
        "closes_at": utc(run.closes_at),
        "opened_at": utc(run.opened_at),
        "certified_at": utc(run.certified_at),
        "caught_up": run.caught_up,
        "base_run_id": run.base_run_id,
        "snapshot_count": run.snapshot_count,
        "checksum": run.checksum,
        "refusal": run.refusal,
        "totals": [
            {
                "currency": total.currency,
                "balance_count": total.balance_count,
                "difference": exact(total.difference),
                **{name: exact(getattr(total, name)) for name in AMOUNTS if hasattr(total, name)},
                "itemised_difference": exact(total.itemised_difference),
                "itemised_inflight_difference": exact(total.itemised_inflight_difference),
            }
            for total in totals
        ],
    }


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


def late_line(late: list[LateTotals], dates: list[date]) -> str:
    """How much arrived after its day was closed, in one line."""
    postings = sum(total.posting_count for total in late)
    if not postings:
        return "late arrivals: none"
    balances = sum(total.balance_count for total in late)
    days = f"{dates[0]}" if len(dates) == 1 else f"{dates[0]} to {dates[-1]}"
    return f"late arrivals: {postings:,} postings on {balances:,} balances, collected by the close of {days}"


def discrepancy_json(found: Discrepancy) -> dict[str, Any]:
    """A discrepancy with the reference ledger's field names; amounts are None where it is not about a balance."""
    stored = {} if found.stored is None else found.stored.as_columns()
    proven = {} if found.proven is None else found.proven.as_columns()
    balances = {"balance": found.stored_balance, "inflight_balance": found.stored_inflight_balance}
    return {
        "discrepancy_id": found.discrepancy_id,
        "cause": found.cause,
        "action": found.action,
        "found_by": found.found_by,
        "balance_id": found.balance_id,
        "transaction_id": found.transaction_id,
        "business_date": None if found.business_date is None else str(found.business_date),
        "currency": found.currency,
        "stored": {name: _plain_or_none((stored | balances).get(name)) for name in AMOUNTS},
        "proven": {name: _plain_or_none(proven.get(name)) for name in PART_COLUMNS},
        "gross_difference": plain(found.gross_difference),
        "evidence": found.evidence,
        "first_seen_at": utc(found.first_seen_at),
        "last_seen_at": utc(found.last_seen_at),
        "closed_at": utc(found.closed_at),
    }


def _plain_or_none(amount: Decimal | None) -> str | None:
    return None if amount is None else plain(amount)


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
    said = []
    for name, value in evidence.items():
        shown = value
        if isinstance(value, dict):
            shown = ", ".join(f"{inner} {amount}" for inner, amount in value.items() if amount != "0")
        elif isinstance(value, list):
            shown = ", ".join(str(each) for each in value)
        said.append(f"{name}: {shown}")
    return "; ".join(said)


def verification_json(verification: Verification, found: list[Discrepancy], totals: list[CauseTotal]) -> dict[str, Any]:
    """A verification's verdict."""
    return {
        "verification_id": verification.verification_id,
        "scope": verification.scope,
        "status": verification.status,
        "started_at": utc(verification.started_at),
        "finished_at": utc(verification.finished_at),
        "balance_count": verification.balance_count,
        "finding_count": verification.finding_count,
        "opened_count": verification.opened_count,
        "closed_count": verification.closed_count,
        "gross_volume": plain(verification.gross_volume),
        "unexplained_volume": plain(verification.unexplained_volume),
        "explained_percent": verification.explained_percent,
        "totals": [
            {
                "cause": total.cause,
                "action": total.action,
                "currency": total.currency,
                "discrepancy_count": total.discrepancy_count,
                "gross_difference": plain(total.gross_difference),
            }
            for total in totals
        ],
        "discrepancies": [discrepancy_json(each) for each in found],
    }


def verification_line(verification: Verification) -> str:
    """A verification's verdict in one line."""
    what = f"{verification.balance_count:,} balances" if verification.scope != "checksums" else "every closed date"
    if not verification.finding_count:
        closed = f"; {verification.closed_count} earlier closed" if verification.closed_count else ""
        return f"{verification.name}: {what}, nothing found{closed}"
    plural = "discrepancy" if verification.finding_count == 1 else "discrepancies"
    return (
        f"{verification.name}: {what}, {verification.finding_count} {plural}, {verification.opened_count} new, "
        f"{verification.closed_count} closed; {verification.explained_percent} % of gross volume explained"
    )


# Reconstruction -------------------------------------------------------------------------------------------------------


def reconstruction_json(reconstruction: Reconstruction, results: list[Result]) -> dict[str, Any]:
    """A reconstruction and its results; each has the eight fields of the reference system's result."""
    return {
        "reconstruction_id": reconstruction.reconstruction_id,
        "mode": reconstruction.mode,
        "selection": reconstruction.selection,
        "status": reconstruction.status,
        "figures_hash": reconstruction.figures_hash,
        "approval_reasons": reconstruction.approval_reasons,
        "proposed_by": reconstruction.proposed_by,
        "approved_by": reconstruction.approved_by,
        "results": [
            {
                "balance_id": result.balance_id,
                "currency": result.currency,
                "verdict": result.verdict,
                "cause": result.cause,
                "remark": result.remark,
                "evidence": dict(result.evidence),
                **result.as_reference(),
                "previous_inflight_balance": exact(result.previous.inflight_balance),
                "recalculated_inflight_balance": exact(result.recalculated.inflight_balance),
            }
            for result in results
        ],
    }


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
    """What came of it, and what to do next."""
    counts = {
        verdict: sum(result.verdict == verdict for result in results)
        for verdict in ("agrees", "correct", "corrected", "refused", "stale")
    }
    words = {"agrees": "right", "correct": "to correct"}
    said = ", ".join(f"{count:,} {words.get(verdict, verdict)}" for verdict, count in counts.items() if count)
    line = f"{reconstruction.name}: {said or 'no balance to reconstruct'}"
    if reconstruction.mode == "report" and counts["correct"]:
        line += (
            f"; nothing was changed. Figures {str(reconstruction.figures_hash)[:16]}: repeat with --apply --reason WHY "
            "--as WHO to propose them, and with --approve HASH to approve them"
        )
    return line


def approval_line(reconstruction: Reconstruction, *, approved_others: bool) -> str:
    """What somebody has to do so that a proposal is applied."""
    begin = "the figures are no longer those that were approved; " if approved_others else ""
    return (
        f"{begin}nothing was corrected: it needs the approval of somebody else than "
        f"{reconstruction.proposed_by or 'its proposer'} ({'; '.join(reconstruction.approval_reasons or [])}):\n"
        f"ledger-eod reconstruct --apply --approve {str(reconstruction.figures_hash)[:16]} --as WHO"
    )


def correction_json(correction: Correction) -> dict[str, Any]:
    """A line of the log; amounts as strings in minor units."""
    return {
        "correction_id": correction.correction_id,
        "reconstruction_id": correction.reconstruction_id,
        "balance_id": correction.balance_id,
        "currency": correction.currency,
        "difference": exact(correction.difference),
        **{f"previous_{name}": exact(amount) for name, amount in correction.previous._asdict().items()},
        **{f"corrected_{name}": exact(amount) for name, amount in correction.corrected._asdict().items()},
        "previous_version": correction.previous_version,
        "corrected_version": correction.corrected_version,
        "cause": correction.cause,
        "evidence": dict(correction.evidence),
        "reason": correction.reason,
        "proposed_by": correction.proposed_by,
        "approved_by": correction.approved_by,
        "figures_hash": correction.figures_hash,
        "base_run_id": correction.base_run_id,
        "flow_run_id": correction.flow_run_id,
        "drifted_since": utc(correction.drifted_since),
        "corrected_at": utc(correction.corrected_at),
    }


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
