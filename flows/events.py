"""Events of the jobs, which automations act on."""

from __future__ import annotations

from typing import Any

from prefect.events import emit_event

from ledger_db.close.runs import Run
from ledger_db.core.amounts import plain
from ledger_db.correction.driver import ReconstructionReport
from ledger_db.correction.proposals import gross_by_currency
from ledger_db.server.connections import database_name, ledger_url
from ledger_db.verification.sweeps import Verification


def announce_reconstruction(report: ReconstructionReport, outcome: str, **payload: Any) -> None:
    """Emit one event per reconstruction and outcome."""
    reconstruction = report.reconstruction
    emit_event(
        event=f"ledger-eod.reconstruction.{outcome}",
        resource={
            "prefect.resource.id": f"ledger-eod.reconstruction.{reconstruction.reconstruction_id}",
            "prefect.resource.name": reconstruction.name,
        },
        payload={
            "database": database_name(ledger_url()),
            "mode": reconstruction.mode,
            "reason": reconstruction.reason,
            "proposed_by": reconstruction.proposed_by,
            "totals": ", ".join(
                f"{plain(gross)} {currency}" for currency, gross in gross_by_currency(report.proposed).items()
            ),
            "selection": reconstruction.selection,
            "figures_hash": reconstruction.figures_hash,
            "balance_count": len(report.results),
            "proposed_count": len(report.proposed),
            "corrected_count": len(report.corrections),
            **payload,
        },
    )


def announce_verification(verification: Verification, **payload: Any) -> None:
    """Emit one event per verification: found or clean."""
    emit_event(
        event=f"ledger-eod.verification.{'found' if verification.finding_count else 'clean'}",
        resource={
            "prefect.resource.id": f"ledger-eod.verification.{verification.verification_id}",
            "prefect.resource.name": verification.name,
            "ledger-eod.scope": verification.scope,  # an automation can choose by a label, not by the payload
        },
        payload={
            "database": database_name(ledger_url()),
            "scope": verification.scope,
            "balance_count": verification.balance_count,
            "finding_count": verification.finding_count,
            "opened_count": verification.opened_count,
            "closed_count": verification.closed_count,
            "explained_percent": verification.explained_percent,
            **payload,
        },
    )


def announce_nothing_to_close(**payload: Any) -> None:
    """Emit the completion of an end of day that found every date closed, so that it does not count as missing."""
    emit_event(
        event="ledger-eod.end-of-day.completed",
        resource={"prefect.resource.id": "ledger-eod.end-of-day", "prefect.resource.name": "nothing to close"},
        payload={"late_postings": 0, "dates": [], **payload},
    )


def announce_run(event: str, run: Run, **payload: Any) -> None:
    """Emit an event about a run."""
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
