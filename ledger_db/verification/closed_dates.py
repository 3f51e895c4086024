"""Closed dates: compares each close's raw rows with its stored checksums, and its snapshots with the run's checksum.

Findings name the dates that differ, then the balances on them.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date
from decimal import Decimal
from typing import Any, Final

from sqlalchemy import Connection, Row, exists, select

from ledger_db.close import tables
from ledger_db.close.certification import checksum_snapshots
from ledger_db.close.cut import cut_parameters
from ledger_db.close.row_checksums import RowChecksum, checksum_rows, stored_checksums
from ledger_db.close.runs import Run, find_run
from ledger_db.core.amounts import EXACT, Parts, difference_of, plain
from ledger_db.postings.rules import statement
from ledger_db.server.connections import without_time_limit
from ledger_db.verification.causes import Finding
from ledger_db.verification.sweeps import Tally

CAUSE: Final = "row_edited_or_removed"


@dataclass(frozen=True)
class CloseCheck:
    """The findings on one close. ``has_checksums``: closes before version 0.2 stored none of their raw rows."""

    run_id: int
    transaction_count: int
    has_checksums: bool
    findings: list[Finding]

    @property
    def tally(self) -> Tally:
        """One batch; its findings are counted where they are stored."""
        return Tally(batch_count=1)


def check_close(connection: Connection, run_id: int) -> CloseCheck:
    """Check one close: its raw rows against their stored checksums, its snapshots against the run's checksum.

    Names first the dates, then the balances on them. Reads only. Cost: the close's own rows, and the chain's activity
    where its snapshots were altered.

    Raises:
        UnknownRun: there is none of this id.
    """
    run = find_run(connection, run_id)
    without_time_limit(connection)
    stored = stored_checksums(connection, run)
    findings = _findings_on_snapshots(connection, run)
    if not stored and _has_activity(connection, run_id):
        return CloseCheck(run_id, 0, False, findings)
    found = checksum_rows(connection, run)
    changed = sorted(day for day in stored.keys() | found.keys() if stored.get(day) != found.get(day))
    if changed:
        findings += [_changed_date(run, day, stored.get(day), found.get(day)) for day in changed]
        findings += [_changed_balance(run, row) for row in _changed_balances(connection, run, changed)]
    return CloseCheck(run_id, sum(checksum.transaction_count for checksum in found.values()), True, findings)


def _has_activity(connection: Connection, run_id: int) -> bool:
    return bool(connection.scalar(select(exists().where(tables.activity.c.run_id == run_id))))


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


def _changed_balances(connection: Connection, run: Run, dates: list[date]) -> list[Row[Any]]:
    return list(
        connection.execute(
            statement(connection, "verification.changed_balances"),
            cut_parameters(connection, run) | {"run_id": run.run_id, "dates": dates},
        )
    )


def _changed_balance(run: Run, row: Row[Any]) -> Finding:
    stored, proven = Parts.of_row(row, "stored_"), Parts.of_row(row, "proven_")
    difference, gross = difference_of(stored.minus(proven))
    return Finding(
        CAUSE, "investigate", balance_key=row.balance_key, business_date=row.effective_date, stored=stored,
        proven=proven, difference=f"run {run.run_id}|{difference}", gross_difference=gross,
        evidence={
            "close": str(run.business_date), "run_id": run.run_id, "postings_then": row.postings_then,
            "postings_now": row.postings_now, "transaction_ids_now": list(row.transaction_ids),
        },
    )  # fmt: skip


def _findings_on_snapshots(connection: Connection, run: Run) -> list[Finding]:
    checksum = checksum_snapshots(connection, run)
    if checksum == run.checksum:
        return []
    altered = Finding(
        CAUSE, "investigate", business_date=run.business_date,
        difference=f"snapshots of run {run.run_id}|{run.checksum}|{checksum}",
        evidence={"close": str(run.business_date), "run_id": run.run_id, "snapshots": "altered"},
    )  # fmt: skip
    return [altered, *(_altered_snapshot(run, row) for row in _altered_snapshots(connection, run))]


def _altered_snapshots(connection: Connection, run: Run) -> list[Row[Any]]:
    return list(
        connection.execute(
            statement(connection, "verification.altered_snapshots"),
            {"run_id": run.run_id, "business_date": run.business_date, "genesis_run_id": run.genesis_run_id},
        )
    )


def _altered_snapshot(run: Run, row: Row[Any]) -> Finding:
    stored, proven = Parts.of_row(row, "stored_"), Parts.of_row(row, "proven_")
    difference, gross = difference_of(stored.minus(proven))
    return Finding(
        CAUSE, "investigate", balance_key=row.balance_key, business_date=run.business_date, stored=stored,
        proven=proven, difference=f"snapshot of run {run.run_id}|{difference}", gross_difference=gross,
        evidence={
            "close": str(run.business_date), "run_id": run.run_id,
            "snapshot": "missing" if row.is_missing else "altered",
        },
    )  # fmt: skip
