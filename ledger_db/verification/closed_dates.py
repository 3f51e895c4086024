"""Closed dates: each close's raw rows against the checksums that it stored, its snapshots against its own checksum.

Where they differ, the dates are named first, then the balances on them.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date
from decimal import Decimal
from typing import Any

from sqlalchemy import Connection, text

from ledger_db.close.certification import checksum_snapshots
from ledger_db.close.cut import cut_parameters
from ledger_db.close.row_checksums import RowChecksum, checksum_rows, stored_checksums
from ledger_db.close.runs import Run, find_run
from ledger_db.core.amounts import EXACT, Parts, difference_of, plain
from ledger_db.postings.rules import statement
from ledger_db.verification.causes import Finding

CAUSE = "row_edited_or_removed"


@dataclass(frozen=True)
class CloseVerdict:
    """What checking one close against its raw rows came to. ``has_checksums``: closes before 0.2 stored none."""

    run_id: int
    transaction_count: int
    has_checksums: bool
    findings: list[Finding]


def check_close(connection: Connection, run_id: int) -> CloseVerdict:
    """Check one close: its raw rows against what it stored of them, its snapshots against its checksum.

    Names first the dates, then the balances on them. Reads only. Cost: the close's own rows, and the chain's activity
    where its snapshots were altered.
    """
    run = find_run(connection, run_id)
    connection.execute(text("SET LOCAL statement_timeout = 0"))
    stored = stored_checksums(connection, run)
    findings = _altered_snapshots(connection, run)
    if not stored and _has_activity(connection, run_id):
        return CloseVerdict(run_id, 0, False, findings)
    found = checksum_rows(connection, run)
    changed = sorted(day for day in stored.keys() | found.keys() if stored.get(day) != found.get(day))
    if changed:
        findings += [_changed_date(run, day, stored.get(day), found.get(day)) for day in changed]
        findings += _changed_balances(connection, run, changed)
    return CloseVerdict(run_id, sum(checksum.transaction_count for checksum in found.values()), True, findings)


def _has_activity(connection: Connection, run_id: int) -> bool:
    return bool(
        connection.scalar(
            text("SELECT EXISTS (SELECT FROM ledger_eod.activity WHERE run_id = :run_id)"), {"run_id": run_id}
        )
    )


def _changed_date(run: Run, day: date, stored: RowChecksum | None, found: RowChecksum | None) -> Finding:
    def amounts(checksum: RowChecksum | None) -> dict[str, str]:
        return {
            "transaction_count": str(0 if checksum is None else checksum.transaction_count),
            "posted_amount": plain(Decimal(0) if checksum is None else checksum.posted_amount),
            "held_amount": plain(Decimal(0) if checksum is None else checksum.held_amount),
            "checksum": "" if checksum is None else checksum.checksum,
        }

    then, now = amounts(stored), amounts(found)
    _, gross = difference_of(
        [EXACT.subtract(Decimal(then[name]), Decimal(now[name])) for name in ("posted_amount", "held_amount")]
    )
    return Finding(
        CAUSE, "investigate", business_date=day, difference=f"run {run.run_id}|{then['checksum']}|{now['checksum']}",
        gross_difference=gross,
        evidence={"close": str(run.business_date), "run_id": run.run_id, "then": then, "now": now},
    )  # fmt: skip


def _changed_balances(connection: Connection, run: Run, dates: list[date]) -> list[Finding]:
    rows = connection.execute(
        statement(connection, "verification.compare_activity"),
        cut_parameters(connection, run) | {"run_id": run.run_id, "dates": dates},
    )
    findings = []
    for row in rows:
        stored, proven = _parts(row, "stored"), _parts(row, "proven")
        difference, gross = difference_of(stored.minus(proven))
        findings.append(
            Finding(
                CAUSE, "investigate", balance_key=row.balance_key, business_date=row.effective_date, stored=stored,
                proven=proven, difference=f"run {run.run_id}|{difference}", gross_difference=gross,
                evidence={
                    "close": str(run.business_date), "run_id": run.run_id, "postings_then": row.postings_then,
                    "postings_now": row.postings_now, "transaction_ids_now": list(row.transaction_ids),
                },
            )
        )  # fmt: skip
    return findings


def _altered_snapshots(connection: Connection, run: Run) -> list[Finding]:
    scope = {"run_id": run.run_id, "business_date": run.business_date}
    checksum = checksum_snapshots(connection, run)
    if checksum == run.checksum:
        return []
    findings = [
        Finding(
            CAUSE, "investigate", business_date=run.business_date,
            difference=f"snapshots of run {run.run_id}|{run.checksum}|{checksum}",
            evidence={"close": str(run.business_date), "run_id": run.run_id, "snapshots": "altered"},
        )
    ]  # fmt: skip
    rows = connection.execute(
        statement(connection, "verification.compare_snapshots"), scope | {"genesis_run_id": run.genesis_run_id}
    )
    for row in rows:
        stored, proven = _parts(row, "stored"), _parts(row, "proven")
        difference, gross = difference_of(stored.minus(proven))
        findings.append(
            Finding(
                CAUSE, "investigate", balance_key=row.balance_key, business_date=run.business_date, stored=stored,
                proven=proven, difference=f"snapshot of run {run.run_id}|{difference}", gross_difference=gross,
                evidence={
                    "close": str(run.business_date), "run_id": run.run_id,
                    "snapshot": "missing" if row.is_missing else "altered",
                },
            )
        )  # fmt: skip
    return findings


def _parts(row: Any, prefix: str) -> Parts:
    return Parts(
        *(
            getattr(row, f"{prefix}_{name}")
            for name in ("credit_balance", "debit_balance", "inflight_credit_balance", "inflight_debit_balance")
        )
    )
