"""Corrections: approved, version-fenced rewrites of stored balance rows, and the append-only log of them.

A correction locks the row, recalculates the balance in one statement under the lock, writes all amounts together, reads
the row again, proves it again, and appends to the log: one database transaction, or nothing. No transaction row and no
snapshot is ever touched.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, fields
from datetime import datetime
from decimal import Decimal
from typing import Any, Final

from sqlalchemy import Connection, Row, insert, select
from sqlalchemy.exc import DBAPIError

from ledger_db.books.tables import balances
from ledger_db.close.cut import cut_parameters
from ledger_db.core.amounts import Amounts, Parts, plain
from ledger_db.correction import tables
from ledger_db.correction.recalculation import (
    CORRECTABLE,
    NOTIFICATION_LIMIT,
    Outcome,
    Recalculation,
    Result,
    recalculate,
    result_of,
    too_long,
)
from ledger_db.correction.reconstructions import Reconstruction, base_of, change_result, find_reconstruction, results_of
from ledger_db.errors import ReconstructionRefused, StaleFigures, UnknownReconstruction, sqlstate_of
from ledger_db.postings.rules import statement
from ledger_db.verification.discrepancies import close_corrected

PAYLOAD_TOO_LONG: Final = "22023"  # invalid_parameter_value: pg_notify's payload


@dataclass(frozen=True)
class Correction:
    """One row of the log; minor units. ``drifted_since``: when the row was last seen to agree; None: not known."""

    correction_id: int
    reconstruction_id: int
    balance_id: str
    currency: str
    previous_version: int
    previous: Amounts
    corrected_version: int
    corrected: Amounts
    cause: str
    evidence: Mapping[str, Any]
    reason: str
    proposed_by: str
    approved_by: str | None
    approval_id: int | None
    figures_hash: str
    base_run_id: int | None
    flow_run_id: str | None
    drifted_since: datetime | None
    corrected_at: datetime

    @property
    def difference(self) -> Decimal:
        """What was added to the balance: corrected minus previous, minor units."""
        return self.corrected.minus(self.previous).balance


def correct_balance(connection: Connection, reconstruction_id: int, balance_id: str) -> Outcome:
    """Correct one balance as proposed, unless it needs no correction now, or a different one than was proposed.

    Waits for the row's lock, at most ``lock_timeout``. Give it a READ COMMITTED transaction of its own: the balance is
    then recalculated from what is committed when the lock is held. A writer that read the row before is refused by its
    own version check; this correction is refused the same way when such a writer was first. A second call changes
    nothing, at once or later: the outcome for the balance is read under its lock.

    Raises:
        ReconstructionRefused: this reconstruction is not being applied.
        StaleFigures: the row was written by a writer that ignores the lock; nothing is corrected.
        UnknownReconstruction: there is none of this id, or the balance is not part of it.
    """
    lock_balance(connection, balance_id)
    reconstruction = find_reconstruction(connection, reconstruction_id)
    if reconstruction.applying_at is None or reconstruction.status != "proposed":
        raise ReconstructionRefused(f"{reconstruction.name} is not being applied")
    proposed = next(iter(results_of(connection, reconstruction_id, balance_id=balance_id)), None)
    if proposed is None:
        raise UnknownReconstruction(f"{balance_id} is not part of {reconstruction.name}")
    if proposed.verdict not in ("correct", "agrees"):
        return proposed.verdict
    found = recalculate(connection, balance_id, base_of(connection, reconstruction))
    verdict, remark = _correct(connection, reconstruction, proposed, found)
    if proposed.verdict == "correct" or verdict != "agrees":
        change_result(connection, reconstruction_id, proposed.balance_key, verdict, remark)
    return verdict


def _correct(
    connection: Connection, reconstruction: Reconstruction, proposed: Result, found: Recalculation
) -> tuple[Outcome, str]:
    """Write the correction of a locked row, if it is still the one that was proposed; returns outcome and remark."""
    now = result_of(found, "correct", None, "")
    if not found.agrees:
        if found.refusal:
            return "refused", found.refusal
        if now.figures != proposed.figures:
            return "stale", "the difference is not the proposed one any more: reconstruct it again"
    elif not found.is_requested:
        return "agrees", "the stored row is right already"
    try:
        with connection.begin_nested():
            answer = json.dumps(now.as_reference()) if found.is_requested else None
            row = write_correction(connection, found, answer=answer)
            _prove_again(connection, found, row)
    except _RowTooLongError as error:
        return "refused", str(error)
    if found.agrees:
        return "agrees", "the stored row is right already; the request is answered"
    correction_id = _log_correction(connection, reconstruction, proposed, found, row)
    close_corrected(connection, proposed.balance_key, causes=CORRECTABLE, correction_id=correction_id)
    return "corrected", f"correction {correction_id}"


class _RowTooLongError(Exception):
    """The row, as it would be written, does not fit into a notification."""


def lock_balance(connection: Connection, balance_id: str) -> None:
    """Lock a balance row against writers until the transaction ends; it stops neither readers nor new transactions."""
    connection.execute(select(balances.c.id).where(balances.c.balance_id == balance_id).with_for_update(key_share=True))


def write_correction(connection: Connection, found: Recalculation, *, answer: str | None = None) -> Row[Any]:
    """Write the recalculated amounts, fenced by the version that was read with them; returns the row as it is now.

    Raises:
        StaleFigures: a writer was first.
    """
    try:
        with connection.begin_nested():
            row = connection.execute(
                statement(connection, "correction.write_correction"),
                {
                    "balance_key": found.suspect.live_key,
                    "version": found.version,
                    "answer": answer,
                    **found.suspect.proven.as_columns(),
                },
            ).one_or_none()
    except DBAPIError as error:
        longest = found.notification_bytes + len(answer or "") + sum(len(plain(each)) for each in found.recalculated)
        if sqlstate_of(error) != PAYLOAD_TOO_LONG or longest < NOTIFICATION_LIMIT:
            raise
        raise _RowTooLongError(too_long(found.notification_bytes)) from None
    if row is None:
        raise StaleFigures(f"{found.suspect.balance_id} was written since it was read: nothing is corrected")
    return row


def _prove_again(connection: Connection, found: Recalculation, row: Row[Any]) -> None:
    """Compare the row, read again, with its postings as they are now: the recalculated ones, and any recorded since."""
    if row.notification_bytes >= NOTIFICATION_LIMIT:
        raise _RowTooLongError(too_long(row.notification_bytes))
    proven = found.suspect.proven.plus(_recorded_meanwhile(connection, found))
    if Amounts.of_row(row) != Amounts.of_parts(proven):
        raise StaleFigures(f"{found.suspect.balance_id} does not prove after its correction: nothing is corrected")


def _recorded_meanwhile(connection: Connection, found: Recalculation) -> Parts:
    row = connection.execute(
        statement(connection, "correction.recorded_meanwhile"),
        {"balance_id": found.suspect.balance_id, **cut_parameters(connection, found.cut)},
    ).one()
    return Parts(row.credit, row.debit, row.inflight_credit, row.inflight_debit)


def _log_correction(
    connection: Connection, reconstruction: Reconstruction, proposed: Result, found: Recalculation, row: Row[Any]
) -> int:
    return int(
        connection.execute(
            insert(tables.corrections)
            .values(
                reconstruction_id=reconstruction.reconstruction_id,
                balance_key=proposed.balance_key,
                balance_id=proposed.balance_id,
                currency=proposed.currency,
                previous_version=found.version,
                **found.previous.as_columns("previous_"),
                corrected_version=row.version,
                **found.recalculated.as_columns("corrected_"),
                cause=proposed.cause,
                evidence=dict(proposed.evidence),
                reason=reconstruction.reason,
                proposed_by=reconstruction.proposed_by,
                approved_by=reconstruction.approved_by,
                approval_id=reconstruction.approval_id,
                figures_hash=reconstruction.figures_hash,
                base_run_id=reconstruction.base_run_id,
                flow_run_id=reconstruction.flow_run_id,
                drifted_since=_last_agreed(connection, proposed.balance_key),
            )
            .returning(tables.corrections.c.correction_id)
        ).scalar_one()
    )


def _last_agreed(connection: Connection, balance_key: int) -> datetime | None:
    agreed_at: datetime | None = connection.scalar(
        statement(connection, "correction.last_agreed"), {"balance_key": balance_key}
    )
    return agreed_at


def list_corrections(
    connection: Connection,
    *,
    limit: int = 200,
    balance_id: str | None = None,
    reconstruction_id: int | None = None,
) -> list[Correction]:
    """The log, newest first."""
    corrections = tables.corrections
    query = select(corrections).order_by(corrections.c.correction_id.desc()).limit(limit)
    if balance_id is not None:
        query = query.where(corrections.c.balance_id == balance_id)
    if reconstruction_id is not None:
        query = query.where(corrections.c.reconstruction_id == reconstruction_id)
    return [_correction(row) for row in connection.execute(query)]


def _correction(row: Row[Any]) -> Correction:
    names = {field.name for field in fields(Correction)} - {"previous", "corrected"}
    return Correction(
        **{name: row._mapping[name] for name in names},
        previous=Amounts.of_row(row, "previous_"),
        corrected=Amounts.of_row(row, "corrected_"),
    )
