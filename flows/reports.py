"""Tables and texts for readers of the Prefect UI. The evidence itself is in the ledger's database."""

from __future__ import annotations

import json
import re
from hashlib import sha256
from typing import Any

from prefect.artifacts import create_table_artifact

from ledger_db.close.activity import LateAmounts
from ledger_db.core.amounts import AMOUNT_COLUMNS, plain
from ledger_db.correction.driver import ReconstructionReport
from ledger_db.correction.proposals import gross_by_currency
from ledger_db.correction.recalculation import Result
from ledger_db.verification.driver import VerificationReport
from ledger_db.verification.sweeps import Verification
from tasks.close import Certificate

TABLE_ROWS = 200
FORM_ROWS = 20
PART_DIGITS = 8  # of the hash of a selection, in an artifact's key


def artifact_key(*parts: object) -> str:
    """A key of lower-case letters, digits and dashes."""
    return "-".join(str(part).lower().replace("_", "-") for part in parts)


def verification_key(what: str, verification: Verification) -> str:
    """An artifact's key for a verification; what is about a part of the balances does not replace what is about all."""
    if not verification.is_restricted:
        return artifact_key(what, verification.scope)
    part = sha256(json.dumps(verification.restriction, sort_keys=True).encode()).hexdigest()
    return artifact_key(what, verification.scope, "part", part[:PART_DIGITS])


def report_totals(certificate: Certificate) -> None:
    """A table of a certified run's totals by currency, and one of its exceptions, if any. Minor units, as text."""
    run = certificate.run
    create_table_artifact(
        key=artifact_key("totals", run.kind, run.business_date),
        table=[
            {
                "currency": totals.currency,
                "balances": totals.balance_count,
                "credits": str(totals.credit_balance),
                "debits": str(totals.debit_balance),
                "difference": str(totals.difference),
                "itemised": str(totals.itemised_difference),
                "inflight credits": str(totals.inflight_credit_balance),
                "inflight debits": str(totals.inflight_debit_balance),
            }
            for totals in certificate.totals
        ]
        or [{"currency": "none", "balances": 0}],
        description=(
            f"Certified {run.name}: {run.snapshot_count} snapshots, checksum `{run.checksum}`. Minor units. "
            f"Exceptions: {_counted(certificate.exception_counts)}."
        ),
    )
    if certificate.exceptions:
        create_table_artifact(
            key=artifact_key("exceptions", run.kind, run.business_date),
            table=[
                {
                    "transaction": exception.transaction_id,
                    "currency": exception.currency,
                    "cause": exception.cause,
                    "difference": str(exception.difference),
                    "inflight difference": str(exception.inflight_difference),
                }
                for exception in certificate.exceptions[:TABLE_ROWS]
            ],
            description=(
                f"Transactions that {run.name} itemised: {_counted(certificate.exception_counts)}. Shown are at most "
                f"{TABLE_ROWS} rows, first those that could not be counted, then by difference. Minor units."
            ),
        )


def _counted(causes: dict[str, int]) -> str:
    return ", ".join(f"{count} {cause}" for cause, count in causes.items()) or "none"


def report_late_arrivals(certificates: list[Certificate], key: str) -> None:
    """A table of postings that arrived after their day was closed: totals of all, then the largest effects, capped."""
    totals: list[dict[str, Any]] = [
        {
            "closed": str(certificate.run.business_date),
            "balance": f"all {late.balance_count} balances",
            "business date": "total",
            **_late_amounts(late),
        }
        for certificate in certificates
        for late in certificate.late_totals
    ]
    arrivals = sorted(
        ((certificate.run, late) for certificate in certificates for late in certificate.late_arrivals),
        key=lambda pair: -pair[1].weight,
    )
    rows: list[dict[str, Any]] = [
        {
            "closed": str(run.business_date),
            "balance": late.balance_id,
            "business date": str(late.effective_date),
            **_late_amounts(late),
        }
        for run, late in arrivals[:TABLE_ROWS]
    ]
    create_table_artifact(
        key=key,
        table=(totals + rows) or [{"closed": "nothing arrived late"}],
        description=f"Late arrivals: {len(rows)} largest effects, posted or on hold, after the totals. Minor units.",
    )


def _late_amounts(late: LateAmounts) -> dict[str, Any]:
    return {
        "currency": late.currency,
        "postings": late.posting_count,
        "credits": str(late.credit_balance),
        "debits": str(late.debit_balance),
        "effect": str(late.effect),
        "inflight credits": str(late.inflight_credit_balance),
        "inflight debits": str(late.inflight_debit_balance),
        "inflight effect": str(late.inflight_effect),
    }


def _even(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The rows, each with every column: the UI shows only the columns of the first row."""
    columns = list(dict.fromkeys(column for row in reversed(rows) for column in row))
    return [{column: row.get(column, "") for column in columns} for row in rows]


def report_discrepancies(report: VerificationReport) -> None:
    """A table of a verification's discrepancies: totals by cause, then the largest, capped. Minor units, as text."""
    verification = report.verification
    totals: list[dict[str, Any]] = [
        {
            "cause": total.cause,
            "about": f"all {total.discrepancy_count}",
            "currency": total.currency,
            "gross difference": plain(total.gross_difference),
            "action": total.action,
        }
        for total in report.totals
    ]
    worst: list[dict[str, Any]] = [
        {
            "cause": found.cause,
            "about": found.subject,
            "currency": found.currency or "",
            "gross difference": plain(found.gross_difference),
            "action": found.action,
            "stored": "" if found.stored_balance is None else plain(found.stored_balance),
            "first seen": f"{found.first_seen_at:%Y-%m-%d}",
            "evidence": json.dumps(found.evidence),
        }
        for found in report.discrepancies[:TABLE_ROWS]
    ]
    create_table_artifact(
        key=verification_key("discrepancies", verification),
        table=_even(totals + worst) or [{"cause": "nothing found"}],
        description=f"{verification.name}: {report.subject}, {verification.finding_count} "
        f"discrepancies, {verification.opened_count} new, {verification.closed_count} closed; "
        f"{verification.explained_percent} % of gross volume explained. Minor units, worst first after the totals.",
    )


def report_reconstruction(report: ReconstructionReport) -> None:
    """A table of stored and recalculated figures: totals by currency, then the largest differences, capped; as text."""
    reconstruction = report.reconstruction
    totals: list[dict[str, Any]] = [
        {
            "balance": f"all {sum(result.currency == currency for result in _differing(report))}",
            "currency": currency,
            "gross difference": plain(gross),
        }
        for currency, gross in gross_by_currency(_differing(report)).items()
    ]
    rows: list[dict[str, Any]] = [
        {
            "balance": result.balance_id,
            "currency": result.currency,
            "gross difference": plain(result.gross_difference),
            "was": plain(result.previous.balance),
            "is": plain(result.recalculated.balance),
            "verdict": result.verdict,
            "cause": result.cause or "",
            "credit was": plain(result.previous.credit_balance),
            "credit is": plain(result.recalculated.credit_balance),
            "debit was": plain(result.previous.debit_balance),
            "debit is": plain(result.recalculated.debit_balance),
            "inflight was": plain(result.previous.inflight_balance),
            "inflight is": plain(result.recalculated.inflight_balance),
            "remark": result.remark,
        }
        for result in report.results[:TABLE_ROWS]
    ]
    create_table_artifact(
        key=artifact_key("reconstruction", reconstruction.selection),
        table=_even(totals + rows) or [{"balance": "none"}],
        description=f"{reconstruction.name}, {reconstruction.mode}: {len(report.results)} balances, "
        f"{len(report.proposed)} to correct, {len(report.corrections)} corrected. Figures "
        f"`{reconstruction.figures_hash}`. Minor units, at most {TABLE_ROWS} rows after the totals. *is*: what the "
        "postings say.",
    )


def _differing(report: ReconstructionReport) -> list[Result]:
    return [result for result in report.results if result.verdict in ("correct", "corrected")]


def proposal_markdown(report: ReconstructionReport, *, refused: str = "") -> str:
    """The figures that a user decides about, as the form shows them. ``refused``: why the last decision was."""
    proposal, proposed = report.reconstruction, report.proposed
    gross = ", ".join(f"**{plain(amount)} {currency}**" for currency, amount in gross_by_currency(proposed).items())
    lines = [f"**The last decision did not count:** {_quoted(refused)}", ""] if refused else []
    lines += [
        f"**{proposal.name}** would correct **{len(proposed)}** stored balances by {gross} gross, in minor units. "
        f"Proposed by **{_quoted(proposal.proposed_by) or 'nobody named'}**: {_quoted(proposal.reason)}",
        "",
        f"It needs an approval: {'; '.join(proposal.approval_reasons or [])}.",
        "",
        f"Figures `{str(proposal.figures_hash)[:16]}`: when they change before you decide, you are asked again.",
        "",
        *(
            f"- `{result.balance_id}` {result.currency}, {result.cause}: {_changes(result)}"
            for result in proposed[:FORM_ROWS]
        ),
    ]
    if len(proposed) > FORM_ROWS:
        lines += [
            "",
            f"These are the largest {FORM_ROWS}; more are in the artifact "
            f"`{artifact_key('reconstruction', proposal.selection)}`, all in `ledger_eod.reconstruction_results`.",
        ]
    return "\n".join(lines)


def _changes(result: Result) -> str:
    """Each amount that a correction would change, before and after; the form is too narrow for a table."""
    return ", ".join(
        f"{name.removesuffix('_balance').replace('_', ' ')} **{plain(was)} → {plain(now)}**"
        for name, was, now in zip(AMOUNT_COLUMNS, result.previous, result.recalculated, strict=True)
        if was != now
    )


def _quoted(words: str) -> str:
    """A user's text on one line, with its markup escaped."""
    return re.sub(r"([!-/:-@\[-`{-~])", r"\\\1", " ".join(words.split()))
