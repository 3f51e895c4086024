"""Corrections: approved, version-fenced rewrites of stored balance rows, and the log of them that only grows.

A correction takes the row's lock, recalculates the balance in one statement under it, writes all parts together,
reads the row again, proves it again, and appends to the log: one database transaction, or nothing. No transaction row
and no snapshot is ever touched.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Any, Final

from sqlalchemy import Connection, Row, text
from sqlalchemy.exc import DBAPIError

from ledger_db.core.amounts import AMOUNT_COLUMNS, Amounts, Parts, plain
from ledger_db.correction.recalculation import (
    CORRECTABLE,
    NOTIFICATION_LIMIT,
    Recalculation,
    Result,
    Verdict,
    recalculate,
    result_of,
    too_long,
)
from ledger_db.correction.reconstructions import Reconstruction, base_of, change_result, find_reconstruction, results_of
from ledger_db.errors import ReconstructionRefused, StaleFigures, sqlstate_of
from ledger_db.postings.rules import statement

PAYLOAD_TOO_LONG: Final = "22023"  # invalid_parameter_value: pg_notify's payload


@dataclass(frozen=True)
class Correction:
    """One line of the log; minor units. ``drifted_since``: when the row was last seen to agree, None: not known."""

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
        """What was added to the balance."""
        return self.corrected.minus(self.previous).balance


def correct_balance(connection: Connection, reconstruction_id: int, balance_id: str) -> Verdict:
    """Correct one balance as proposed, unless it needs no correction any more or another one than was proposed.

    Waits for the row's lock as long as ``lock_timeout``. Give it a READ COMMITTED transaction of its own: what is
    recalculated is then what is committed when the lock is held. A writer that read the row before is refused by its
    own version check, as this one is when such a writer came first. A second call changes nothing, at once or later:
    what became of the balance is read under its lock.

    Raises:
        ReconstructionRefused: this reconstruction is not being applied, or the balance is not part of it.
    """
    lock_balance(connection, balance_id)
    reconstruction = find_reconstruction(connection, reconstruction_id)
    if reconstruction.applying_at is None or reconstruction.status != "proposed":
        raise ReconstructionRefused(f"{reconstruction.name} is not being applied")
    proposed = next(iter(results_of(connection, reconstruction_id, balance_id=balance_id)), None)
    if proposed is None:
        raise ReconstructionRefused(f"{balance_id} is not part of {reconstruction.name}")
    if proposed.verdict not in ("correct", "agrees"):
        return proposed.verdict
    found = recalculate(connection, balance_id, base_of(connection, reconstruction))
    verdict, remark = _correct(connection, reconstruction, proposed, found)
    if proposed.verdict == "correct" or verdict != "agrees":
        change_result(connection, reconstruction_id, proposed.balance_key, verdict, remark)
    return verdict


def _correct(
    connection: Connection, reconstruction: Reconstruction, proposed: Result, found: Recalculation
) -> tuple[Verdict, str]:
    """What is to become of a locked row, done."""
    now = result_of(found, "correct", None, "")
    if not found.agrees:
        if found.refusal:
            return "refused", found.refusal
        if now.figures != proposed.figures:
            return "stale", "the difference is another one than was proposed: reconstruct it again"
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
    correction_id = _log(connection, reconstruction, proposed, found, row)
    _close_discrepancies(connection, proposed.balance_key, correction_id)
    return "corrected", f"correction {correction_id}"


class _RowTooLongError(Exception):
    """The row with what is written to it would not fit a notification."""


def lock_balance(connection: Connection, balance_id: str) -> None:
    """Hold a balance row against writers until the transaction ends; readers and inserts of transactions go on."""
    connection.execute(
        text("SELECT FROM blnk.balances WHERE balance_id = :balance_id FOR NO KEY UPDATE"), {"balance_id": balance_id}
    )


def write_correction(connection: Connection, found: Recalculation, *, answer: str | None = None) -> Row[Any]:
    """Write what was recalculated, fenced by the version it was recalculated at; returns the row as it is now.

    Raises:
        StaleFigures: a writer came first.
    """
    proven = found.suspect.proven
    try:
        with connection.begin_nested():
            row = connection.execute(
                statement(connection, "correction.write_correction"),
                {
                    "balance_key": found.suspect.balance_key,
                    "version": found.version,
                    "credit_balance": proven.credit,
                    "debit_balance": proven.debit,
                    "inflight_credit_balance": proven.inflight_credit,
                    "inflight_debit_balance": proven.inflight_debit,
                    "answer": answer,
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
    """Hold the row as it is read again against its postings as they are now: those recalculated, and any since."""
    if row.notification_bytes >= NOTIFICATION_LIMIT:
        raise _RowTooLongError(too_long(row.notification_bytes))
    meanwhile = connection.execute(
        statement(connection, "correction.recorded_meanwhile"),
        {"balance_id": found.suspect.balance_id, "cut": found.cut},
    ).one()
    written = Amounts(*(getattr(row, name) for name in AMOUNT_COLUMNS))
    if written != Amounts.of_parts(found.suspect.proven.plus(Parts(*meanwhile))):
        raise StaleFigures(f"{found.suspect.balance_id} does not prove after its correction: nothing is corrected")


def _log(
    connection: Connection, reconstruction: Reconstruction, proposed: Result, found: Recalculation, row: Row[Any]
) -> int:
    names = [f"{side}_{name}" for side in ("previous", "corrected") for name in AMOUNT_COLUMNS]
    columns = {
        "reconstruction_id": reconstruction.reconstruction_id,
        "balance_key": proposed.balance_key,
        "balance_id": proposed.balance_id,
        "currency": proposed.currency,
        "previous_version": found.version,
        "corrected_version": row.version,
        "cause": proposed.cause,
        "reason": reconstruction.reason,
        "proposed_by": reconstruction.proposed_by,
        "approved_by": reconstruction.approved_by,
        "approval_id": reconstruction.approval_id,
        "figures_hash": reconstruction.figures_hash,
        "base_run_id": reconstruction.base_run_id,
        "flow_run_id": reconstruction.flow_run_id,
        **dict(zip(names, [*found.previous, *found.recalculated], strict=True)),
    }
    return int(
        connection.execute(
            text(
                f"INSERT INTO ledger_eod.corrections ({', '.join(columns)}, evidence, drifted_since) "  # noqa: S608
                f"VALUES ({', '.join(f':{name}' for name in columns)}, CAST(:evidence AS jsonb), ({LAST_AGREED})) "
                "RETURNING correction_id"
            ),
            columns | {"evidence": json.dumps(dict(proposed.evidence))},
        ).scalar_one()
    )


#: When the balance last agreed: the newest verification of all balances that did not see it drift, or its correction.
LAST_AGREED: Final = """
    SELECT GREATEST(
        (
            SELECT max(done.started_at)
            FROM ledger_eod.verifications AS done
            WHERE done.status = 'finished'
                AND done.scope <> 'checksums'
                AND done.ledger_id IS NULL AND done.currency IS NULL AND done.balance_ids IS NULL
                AND NOT EXISTS (
                    SELECT
                    FROM ledger_eod.discrepancies AS known
                    WHERE known.balance_key = :balance_key AND known.business_date IS NULL
                        AND done.verification_id BETWEEN known.first_verification_id AND known.last_verification_id
                )
        ),
        (SELECT max(earlier.corrected_at) FROM ledger_eod.corrections AS earlier WHERE balance_key = :balance_key)
    )
"""


def _close_discrepancies(connection: Connection, balance_key: int, correction_id: int) -> None:
    """What was found of the stored row is answered by this correction."""
    connection.execute(
        text(
            "UPDATE ledger_eod.discrepancies SET closed_at = clock_timestamp(), closed_correction_id = :correction_id "
            "WHERE balance_key = :balance_key AND closed_at IS NULL AND business_date IS NULL "
            "AND cause = ANY(CAST(:causes AS text []))"
        ),
        {"balance_key": balance_key, "correction_id": correction_id, "causes": sorted(CORRECTABLE)},
    )


def list_corrections(
    connection: Connection,
    *,
    limit: int = 200,
    balance_id: str | None = None,
    reconstruction_id: int | None = None,
) -> list[Correction]:
    """The log, newest first."""
    rows = connection.execute(
        text(
            """
            SELECT *
            FROM ledger_eod.corrections
            WHERE (CAST(:balance_id AS text) IS NULL OR balance_id = CAST(:balance_id AS text))
                AND (
                    CAST(:reconstruction_id AS bigint) IS NULL
                    OR reconstruction_id = CAST(:reconstruction_id AS bigint)
                )
            ORDER BY correction_id DESC
            LIMIT :limit
            """
        ),
        {"limit": limit, "balance_id": balance_id, "reconstruction_id": reconstruction_id},
    )
    return [_correction(row) for row in rows]


def _correction(row: Row[Any]) -> Correction:
    def amounts(side: str) -> Amounts:
        return Amounts(*(getattr(row, f"{side}_{name}") for name in AMOUNT_COLUMNS))

    return Correction(
        correction_id=row.correction_id, reconstruction_id=row.reconstruction_id, balance_id=row.balance_id,
        currency=row.currency, previous_version=row.previous_version, previous=amounts("previous"),
        corrected_version=row.corrected_version, corrected=amounts("corrected"), cause=row.cause,
        evidence=row.evidence, reason=row.reason, proposed_by=row.proposed_by, approved_by=row.approved_by,
        approval_id=row.approval_id, figures_hash=row.figures_hash, base_run_id=row.base_run_id,
        flow_run_id=row.flow_run_id, drifted_since=row.drifted_since, corrected_at=row.corrected_at,
    )  # fmt: skip
