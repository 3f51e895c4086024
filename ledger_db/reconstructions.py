"""Reconstructions: which balances, what each came to, and how far a correction of them has got.

A reconstruction is open while its balances are recalculated. Then its figures are sealed: every difference that is to
be corrected, under one hash. A report ends there. To apply it, it may first need an approval of exactly these figures.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Any, Final, Literal

from sqlalchemy import Connection, Row, text
from sqlalchemy.exc import IntegrityError

from ledger_db.causes import EXACT, plain
from ledger_db.errors import ApprovalRefused, ReconstructionRefused
from ledger_db.recalculation import Amounts, Result, Verdict
from ledger_db.runs import Run, find_run
from ledger_db.schema import AMOUNTS
from ledger_db.verifications import usable_base

Selection = Literal["given", "discrepancies", "requested"]
Mode = Literal["report", "apply"]

#: The reference system's own answer to a requested reconstruction; where it is there, that system keeps the ledger.
REFERENCE_TRIGGER: Final = "reconcile_balance_trigger"

SELECTIONS: Final[dict[Selection, str]] = {
    "given": "balance_id = ANY(CAST(:balance_ids AS text []))",
    "discrepancies": "id IN (SELECT balance_key FROM ledger_eod.discrepancies "
    "WHERE closed_at IS NULL AND balance_key IS NOT NULL AND business_date IS NULL)",
    "requested": "meta_data ->> 'BLNK_RUN_RECONCILIATION' = 'SOURCE'",
}


@dataclass(frozen=True)
class Reconstruction:
    """One reconstruction. ``approval_reasons``: why it needs an approval before it is applied; none: it does not."""

    reconstruction_id: int
    mode: Mode
    selection: Selection
    reason: str
    proposed_by: str
    flow_run_id: str | None
    status: Literal["open", "proposed", "ended", "rejected", "superseded"]
    base_run_id: int | None
    figures_hash: str | None
    approval_reasons: list[str] | None
    approval_id: int | None
    approved_by: str | None
    applying_at: datetime | None
    started_at: datetime
    ended_at: datetime | None

    @property
    def name(self) -> str:
        """How logs and messages call it."""
        return f"reconstruction {self.reconstruction_id}"


COLUMNS: Final = """
    reconstruction_id, mode, selection, reason, reconstructions.proposed_by, reconstructions.flow_run_id, status,
    base_run_id, reconstructions.figures_hash, approval_reasons, reconstructions.approval_id,
    approvals.decided_by AS approved_by, applying_at, started_at, ended_at
"""
FROM: Final = "FROM ledger_eod.reconstructions LEFT JOIN ledger_eod.approvals USING (approval_id)"


def open_reconstruction(
    connection: Connection,
    *,
    mode: Mode,
    selection: Selection,
    reason: str = "",
    proposed_by: str = "",
    flow_run_id: str | None = None,
) -> Reconstruction:
    """Open a reconstruction; what the same flow run proposed before is superseded.

    Raises:
        ReconstructionRefused: a correction without a reason, or a request that the application itself answers.
    """
    if mode == "apply" and selection != "requested" and not reason.strip():
        raise ReconstructionRefused("a correction is evidence: it needs a reason")
    if selection == "requested" and not reason.strip():
        reason = "requested in the balance's meta_data"
    if selection == "requested" and _reference_answers(connection):
        raise ReconstructionRefused(
            "this ledger's application answers BLNK_RUN_RECONCILIATION itself: select given or discrepancies"
        )
    connection.execute(
        text(
            "UPDATE ledger_eod.reconstructions SET status = 'superseded', ended_at = clock_timestamp() "
            "WHERE flow_run_id = :flow_run_id AND status IN ('open', 'proposed')"
        ),
        {"flow_run_id": flow_run_id},
    )
    base = usable_base(connection)
    reconstruction_id = connection.execute(
        text(
            """
            INSERT INTO ledger_eod.reconstructions (mode, selection, reason, proposed_by, flow_run_id, base_run_id)
            VALUES (
                CAST(:mode AS ledger_eod.reconstruction_mode), :selection, :reason, :proposed_by, :flow_run_id,
                :base_run_id
            )
            RETURNING reconstruction_id
            """
        ),
        {
            "mode": mode,
            "selection": selection,
            "reason": reason.strip(),
            "proposed_by": proposed_by.strip(),
            "flow_run_id": flow_run_id,
            "base_run_id": None if base is None else base.run_id,
        },
    ).scalar_one()
    return find_reconstruction(connection, reconstruction_id)


def _reference_answers(connection: Connection) -> bool:
    return bool(
        connection.scalar(
            text(
                "SELECT count(*) > 0 FROM pg_trigger WHERE tgrelid = to_regclass('blnk.balances') AND tgname = :name "
                "AND tgenabled <> 'D'"
            ),
            {"name": REFERENCE_TRIGGER},
        )
    )


def find_reconstruction(connection: Connection, reconstruction_id: int) -> Reconstruction:
    """One reconstruction by its id.

    Raises:
        ReconstructionRefused: there is none.
    """
    row = connection.execute(
        text(f"SELECT {COLUMNS} {FROM} WHERE reconstruction_id = :id"),
        {"id": reconstruction_id},
    ).one_or_none()
    if row is None:
        raise ReconstructionRefused(f"there is no reconstruction {reconstruction_id}")
    return Reconstruction(**row._mapping)


def find_resumable(connection: Connection, flow_run_id: str | None) -> Reconstruction | None:
    """The reconstruction that a flow run was applying when it was interrupted: its approval holds for what is left."""
    row = connection.execute(
        text(
            f"SELECT {COLUMNS} {FROM} WHERE reconstructions.flow_run_id = :flow_run_id AND status = 'proposed' "
            "AND applying_at IS NOT NULL ORDER BY reconstruction_id DESC LIMIT 1"
        ),
        {"flow_run_id": flow_run_id},
    ).one_or_none()
    return None if row is None else Reconstruction(**row._mapping)


def select_balances(connection: Connection, selection: Selection, balance_ids: Sequence[str] | None) -> list[str]:
    """The ids of the balances that a selection names, in key order.

    Raises:
        ReconstructionRefused: none is given, too many are, or one that is given does not exist.
    """
    given = sorted(set(balance_ids or ()))
    if selection == "given" and not given:
        raise ReconstructionRefused("no balance is given; ledger-eod discrepancies lists those that need it")
    if selection != "given" and given:
        raise ReconstructionRefused(f"balances are given, and {selection} are asked for: choose one of the two")
    found = list(
        connection.scalars(
            text(f"SELECT balance_id FROM blnk.balances WHERE {SELECTIONS[selection]} ORDER BY id"),  # noqa: S608
            {"balance_ids": given} if given else {},
        )
    )
    missing = sorted(set(given) - set(found))
    if missing:
        raise ReconstructionRefused(f"there is no balance {missing[0]}; ledger-eod balances lists them")
    return found


def base_of(connection: Connection, reconstruction: Reconstruction) -> Run | None:
    """The close that is its third witness."""
    return None if reconstruction.base_run_id is None else find_run(connection, reconstruction.base_run_id)


def store_result(connection: Connection, reconstruction_id: int, result: Result) -> None:
    """Keep what one balance came to; a second call for the same balance changes nothing."""
    names = [f"{side}_{name}" for side in ("previous", "recalculated") for name in AMOUNTS]
    connection.execute(
        text(
            "INSERT INTO ledger_eod.reconstruction_results (reconstruction_id, balance_key, balance_id, currency, "  # noqa: S608
            f"version, verdict, cause, evidence, remark, gross_difference, executed_at, {', '.join(names)}) VALUES ("
            ":reconstruction_id, :balance_key, :balance_id, :currency, :version, "
            "CAST(:verdict AS ledger_eod.reconstruction_verdict), :cause, CAST(:evidence AS jsonb), :remark, "
            f":gross_difference, :executed_at, {', '.join(f':{name}' for name in names)}) ON CONFLICT DO NOTHING"
        ),
        {
            "reconstruction_id": reconstruction_id,
            "balance_key": result.balance_key,
            "balance_id": result.balance_id,
            "currency": result.currency,
            "version": result.version,
            "verdict": result.verdict,
            "cause": result.cause,
            "evidence": json.dumps(dict(result.evidence)),
            "remark": result.remark,
            "gross_difference": result.gross_difference,
            "executed_at": result.executed_at,
            **dict(zip(names, [*result.previous, *result.recalculated], strict=True)),
        },
    )


def results_of(
    connection: Connection, reconstruction_id: int, *, verdict: Verdict | None = None, balance_id: str | None = None
) -> list[Result]:
    """What its balances came to, largest difference first."""
    rows = connection.execute(
        text(
            """
            SELECT *
            FROM ledger_eod.reconstruction_results
            WHERE reconstruction_id = :reconstruction_id
                AND (CAST(:verdict AS text) IS NULL OR verdict = CAST(:verdict AS ledger_eod.reconstruction_verdict))
                AND (CAST(:balance_id AS text) IS NULL OR balance_id = CAST(:balance_id AS text))
            ORDER BY gross_difference DESC, balance_key
            """
        ),
        {"reconstruction_id": reconstruction_id, "verdict": verdict, "balance_id": balance_id},
    )
    return [_result(row) for row in rows]


def _result(row: Row[Any]) -> Result:
    def amounts(side: str) -> Amounts:
        return Amounts(*(getattr(row, f"{side}_{name}") for name in AMOUNTS))

    return Result(
        row.balance_key, row.balance_id, row.currency, row.version, row.verdict, row.cause, row.remark,
        amounts("previous"), amounts("recalculated"), row.gross_difference, row.executed_at, row.evidence,
    )  # fmt: skip


def change_result(
    connection: Connection, reconstruction_id: int, balance_key: int, verdict: Verdict, remark: str
) -> None:
    """Say what became of a balance that was to be corrected."""
    connection.execute(
        text(
            "UPDATE ledger_eod.reconstruction_results "
            "SET verdict = CAST(:verdict AS ledger_eod.reconstruction_verdict), remark = :remark "
            "WHERE reconstruction_id = :reconstruction_id AND balance_key = :balance_key"
        ),
        {
            "verdict": verdict, "remark": remark, "reconstruction_id": reconstruction_id, "balance_key": balance_key,
        },
    )  # fmt: skip


def seal(
    connection: Connection, reconstruction_id: int, *, limits: Mapping[str, Decimal], balance_limit: int
) -> Reconstruction:
    """Put the differences that are to be corrected under one hash, and say why they need an approval, if they do.

    ``limits``: per currency, the gross difference, in minor units, up to which corrections go without an approval; a
    currency that is not there has the limit 0. ``balance_limit``: how many balances may be corrected without one.
    """
    proposed = results_of(connection, reconstruction_id, verdict="correct")
    connection.execute(
        text(
            "UPDATE ledger_eod.reconstructions SET status = 'proposed', figures_hash = :figures_hash, "
            "approval_reasons = CAST(:approval_reasons AS text []) WHERE reconstruction_id = :id AND status = 'open'"
        ),
        {
            "id": reconstruction_id,
            "figures_hash": figures_hash(proposed),
            "approval_reasons": approval_reasons(proposed, limits=limits, balance_limit=balance_limit),
        },
    )
    return find_reconstruction(connection, reconstruction_id)


def figures_hash(proposed: Sequence[Result]) -> str:
    """A SHA-256 over every difference that is to be corrected: balances, currencies, causes, all amounts.

    The differences and not the amounts themselves: a payment that is booked meanwhile moves both sides alike and leaves
    the correction what it was, so that a busy balance can be approved at all.
    """
    lines = sorted("|".join([each.balance_id, each.currency, str(each.cause), *each.figures]) for each in proposed)
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def gross_by_currency(results: Sequence[Result]) -> dict[str, Decimal]:
    """How much is to be corrected in each currency, regardless of signs; minor units."""
    totals: dict[str, Decimal] = {}
    for each in results:
        totals[each.currency] = EXACT.add(totals.get(each.currency, Decimal(0)), each.gross_difference)
    return dict(sorted(totals.items()))


def approval_reasons(proposed: Sequence[Result], *, limits: Mapping[str, Decimal], balance_limit: int) -> list[str]:
    """Why corrections must be approved before they are made; none: they need not."""
    reasons = [
        f"{plain(gross)} {currency} in all, the limit is {plain(limits.get(currency, Decimal(0)))} (minor units)"
        for currency, gross in gross_by_currency(proposed).items()
        if gross.is_nan() or gross > limits.get(currency, Decimal(0))
    ]
    if len(proposed) > balance_limit:
        reasons.append(f"{len(proposed)} balances, the limit is {balance_limit}")
    unexplained = sum(each.cause == "unexplained" for each in proposed)
    if unexplained:
        reasons.append(f"{unexplained} without a known cause")
    return reasons


def begin_applying(connection: Connection, reconstruction_id: int, approval_id: int | None) -> Reconstruction:
    """Use an approval, where one is needed, for this reconstruction and no other, and let its corrections begin.

    Raises:
        ApprovalRefused: it needs an approval and has none, or this is none of its figures, or was used before.
    """
    reconstruction = find_reconstruction(connection, reconstruction_id)
    if reconstruction.status != "proposed" or reconstruction.mode != "apply":
        raise ReconstructionRefused(f"{reconstruction.name} is {reconstruction.status}, to {reconstruction.mode}")
    if reconstruction.approval_reasons and approval_id is None:
        raise ApprovalRefused(f"{reconstruction.name} needs an approval: {'; '.join(reconstruction.approval_reasons)}")
    if approval_id is not None and not _approves(connection, approval_id, reconstruction):
        raise ApprovalRefused(f"this is no approval of the figures of {reconstruction.name}")
    try:
        with connection.begin_nested():
            connection.execute(
                text(
                    "UPDATE ledger_eod.reconstructions SET approval_id = :approval_id, applying_at = clock_timestamp() "
                    "WHERE reconstruction_id = :id"
                ),
                {"id": reconstruction_id, "approval_id": approval_id},
            )
    except IntegrityError:
        raise ApprovalRefused("this approval was used before: an approval is good for one reconstruction") from None
    return find_reconstruction(connection, reconstruction_id)


def _approves(connection: Connection, approval_id: int, reconstruction: Reconstruction) -> bool:
    return bool(
        connection.scalar(
            text(
                "SELECT count(*) FROM ledger_eod.approvals WHERE approval_id = :approval_id "
                "AND decision = 'approved' AND figures_hash = :figures_hash"
            ),
            {"approval_id": approval_id, "figures_hash": reconstruction.figures_hash},
        )
    )


def end_reconstruction(
    connection: Connection, reconstruction_id: int, *, status: Literal["ended", "rejected"] = "ended"
) -> Reconstruction:
    """Close the record: nothing more comes of it."""
    connection.execute(
        text(
            "UPDATE ledger_eod.reconstructions SET status = CAST(:status AS ledger_eod.reconstruction_status), "
            "ended_at = clock_timestamp() WHERE reconstruction_id = :id AND status IN ('open', 'proposed')"
        ),
        {"id": reconstruction_id, "status": status},
    )
    return find_reconstruction(connection, reconstruction_id)
