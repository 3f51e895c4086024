"""Artifacts and events: views of the evidence for people. The evidence itself is in the ledger's database."""

from __future__ import annotations

from typing import Any

from prefect.artifacts import create_table_artifact
from prefect.events import emit_event

from ledger_db.runs import Run
from tasks.closing import Certificate

TABLE_ROWS = 200


def artifact_key(*parts: object) -> str:
    """A key of lower-case letters, digits and dashes."""
    return "-".join(str(part).lower().replace("_", "-") for part in parts)


def report_totals(certificate: Certificate) -> None:
    """A table of what a certified run adds up to, by currency; amounts in minor units, as text."""
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
    """A table of what arrived after its day was closed, worst first and capped, with totals for all of it."""
    totals: list[dict[str, Any]] = [
        {
            "closed": str(certificate.run.business_date),
            "balance": f"all {late.balance_count} balances",
            "business date": "total",
            "currency": late.currency,
            "postings": late.posting_count,
            "credits": str(late.credit_balance),
            "debits": str(late.debit_balance),
            "effect": str(late.credit_balance - late.debit_balance),
        }
        for certificate in certificates
        for late in certificate.late_totals
    ]
    arrivals = sorted(
        ((certificate.run, late) for certificate in certificates for late in certificate.late_arrivals),
        key=lambda pair: -abs(pair[1].credit_balance - pair[1].debit_balance),
    )
    rows: list[dict[str, Any]] = [
        {
            "closed": str(run.business_date),
            "balance": late.balance_id,
            "business date": str(late.effective_date),
            "currency": late.currency,
            "postings": late.posting_count,
            "credits": str(late.credit_balance),
            "debits": str(late.debit_balance),
            "effect": str(late.credit_balance - late.debit_balance),
        }
        for run, late in arrivals[:TABLE_ROWS]
    ]
    create_table_artifact(
        key=key,
        table=(totals + rows) or [{"closed": "nothing arrived late"}],
        description=f"Late arrivals: {len(rows)} largest effects after the totals. Minor units.",
    )


def announce(event: str, run: Run, **payload: Any) -> None:
    """One event per run, for automations."""
    emit_event(
        event=f"ledger-eod.{event}",
        resource={"prefect.resource.id": f"ledger-eod.run.{run.run_id}", "prefect.resource.name": run.name},
        payload={
            "business_date": str(run.business_date),
            "kind": run.kind,
            "checksum": run.checksum,
            "snapshot_count": run.snapshot_count,
            **payload,
        },
    )
