"""Reconstructions: which balances, the outcome for each, and how far their correction has got.

A reconstruction is open while its balances are recalculated. Then its figures are sealed: every difference that is to
be corrected, under one hash. A report ends there. To apply it, it may first need an approval of exactly these figures.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from datetime import datetime
from typing import Any, Final, Literal

from sqlalchemy import ColumnElement, Connection, Row, Select, Text, any_, func, insert, literal, select, update
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.dialects.postgresql import insert as insert_or_ignore

from ledger_db.books.tables import balances
from ledger_db.close.cluster import ensure_cluster
from ledger_db.close.runs import Run, find_run, newest_certified_close
from ledger_db.close.tables import captured_balances
from ledger_db.core.amounts import Amounts
from ledger_db.correction import tables
from ledger_db.correction.recalculation import Outcome, Result
from ledger_db.errors import Hint, NothingSelected, ReconstructionRefused, UnknownBalance, UnknownReconstruction
from ledger_db.evidence.tables import approvals
from ledger_db.server.catalogue import has_enabled_trigger
from ledger_db.verification.tables import discrepancies

Selection = Literal["given", "discrepancies", "requested"]
Mode = Literal["report", "apply"]

#: The reference system's own answer to a requested reconstruction; where it is there, that system keeps the ledger.
REFERENCE_TRIGGER: Final = "reconcile_balance_trigger"


#: Why a selection has no balance.
NONE_SELECTED: Final[dict[Selection, str]] = {
    "discrepancies": "no balance has an open discrepancy: there is nothing to reconstruct",
    "requested": "no balance requests a reconstruction in its meta_data: there is nothing to reconstruct",
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
        """Name for logs and messages."""
        return f"reconstruction {self.reconstruction_id}"


_PLAIN_COLUMNS: Final = [
    tables.reconstructions.c[field.name] for field in fields(Reconstruction) if field.name != "approved_by"
]


def select_reconstructions() -> Select[Any]:
    """Reconstructions with who approved them: a row is the keywords of :class:`Reconstruction`."""
    return select(*_PLAIN_COLUMNS, approvals.c.decided_by.label("approved_by")).select_from(
        tables.reconstructions.outerjoin(approvals)
    )


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
    if selection == "requested" and has_enabled_trigger(connection, "blnk.balances", REFERENCE_TRIGGER):
        raise ReconstructionRefused(
            "this ledger's application answers BLNK_RUN_RECONCILIATION itself: select given or discrepancies"
        )
    if flow_run_id is not None:
        _supersede(connection, flow_run_id)
    ensure_cluster(connection)
    base = newest_certified_close(connection)
    reconstruction_id = connection.execute(
        insert(tables.reconstructions)
        .values(
            mode=mode,
            selection=selection,
            reason=reason.strip(),
            proposed_by=proposed_by.strip(),
            flow_run_id=flow_run_id,
            base_run_id=None if base is None else base.run_id,
        )
        .returning(tables.reconstructions.c.reconstruction_id)
    ).scalar_one()
    return find_reconstruction(connection, reconstruction_id)


def _supersede(connection: Connection, flow_run_id: str) -> None:
    reconstructions = tables.reconstructions
    connection.execute(
        update(reconstructions)
        .where(reconstructions.c.flow_run_id == flow_run_id, reconstructions.c.status.in_(["open", "proposed"]))
        .values(status="superseded", ended_at=func.clock_timestamp())
    )


def find_reconstruction(connection: Connection, reconstruction_id: int) -> Reconstruction:
    """One reconstruction by its id.

    Raises:
        UnknownReconstruction: there is none.
    """
    row = connection.execute(
        select_reconstructions().where(tables.reconstructions.c.reconstruction_id == reconstruction_id)
    ).one_or_none()
    if row is None:
        raise UnknownReconstruction(f"there is no reconstruction {reconstruction_id}")
    return Reconstruction(**row._mapping)


def select_balances(connection: Connection, selection: Selection, balance_ids: Sequence[str] | None) -> list[str]:
    """The ids of the balances that a selection names, in key order.

    Raises:
        ReconstructionRefused: none is given, or some are given beside another selection.
        UnknownBalance: one that is given does not exist.
        NothingSelected: no balance has an open discrepancy, or requests a reconstruction.
    """
    given = sorted(set(balance_ids or ()))
    if selection == "given" and not given:
        raise ReconstructionRefused("no balance is given", hint=Hint.list_discrepancies)
    if selection != "given" and given:
        raise ReconstructionRefused(f"balances are given, and {selection} are asked for: choose one of the two")
    found = list(
        connection.scalars(select(balances.c.balance_id).where(_is_selected(selection, given)).order_by(balances.c.id))
    )
    missing = sorted(set(given) - set(found))
    if missing:
        raise UnknownBalance(f"there is no balance {missing[0]}", hint=Hint.list_balances)
    if not found:
        raise NothingSelected(NONE_SELECTED[selection])
    return found


def _is_selected(selection: Selection, given: list[str]) -> ColumnElement[bool]:
    if selection == "given":
        return balances.c.balance_id == any_(literal(given, ARRAY(Text)))
    if selection == "requested":
        requested: ColumnElement[str] = balances.c.meta_data["BLNK_RUN_RECONCILIATION"].astext
        return requested == "SOURCE"
    captured, found = captured_balances, balances.alias("found")
    return balances.c.balance_id.in_(
        select(func.coalesce(captured.c.balance_id, found.c.balance_id))
        .select_from(
            discrepancies.outerjoin(captured, captured.c.balance_key == discrepancies.c.balance_key).outerjoin(
                found, found.c.id == discrepancies.c.balance_key
            )
        )
        .where(discrepancies.c.closed_at.is_(None), discrepancies.c.business_date.is_(None))
    )


def base_of(connection: Connection, reconstruction: Reconstruction) -> Run | None:
    """The close that is its third witness."""
    return None if reconstruction.base_run_id is None else find_run(connection, reconstruction.base_run_id)


def store_result(connection: Connection, reconstruction_id: int, result: Result) -> None:
    """Keep the outcome for one balance; a second call for the same balance changes nothing."""
    connection.execute(
        insert_or_ignore(tables.reconstruction_results)
        .values(
            reconstruction_id=reconstruction_id,
            balance_key=result.balance_key,
            balance_id=result.balance_id,
            currency=result.currency,
            version=result.version,
            verdict=result.verdict,
            cause=result.cause,
            evidence=dict(result.evidence),
            remark=result.remark,
            gross_difference=result.gross_difference,
            executed_at=result.executed_at,
            **result.previous.as_columns("previous_"),
            **result.recalculated.as_columns("recalculated_"),
        )
        .on_conflict_do_nothing()
    )


def results_of(
    connection: Connection, reconstruction_id: int, *, verdict: Outcome | None = None, balance_id: str | None = None
) -> list[Result]:
    """The outcome for each of its balances, largest difference first."""
    results = tables.reconstruction_results
    query = (
        select(results)
        .where(results.c.reconstruction_id == reconstruction_id)
        .order_by(results.c.gross_difference.desc(), results.c.balance_key)
    )
    if verdict is not None:
        query = query.where(results.c.verdict == verdict)
    if balance_id is not None:
        query = query.where(results.c.balance_id == balance_id)
    return [_result(row) for row in connection.execute(query)]


def _result(row: Row[Any]) -> Result:
    return Result(
        row.balance_key, row.balance_id, row.currency, row.version, row.verdict, row.cause, row.remark,
        Amounts.of_row(row, "previous_"), Amounts.of_row(row, "recalculated_"), row.gross_difference, row.executed_at,
        row.evidence,
    )  # fmt: skip


def change_result(
    connection: Connection, reconstruction_id: int, balance_key: int, verdict: Outcome, remark: str
) -> None:
    """Store the outcome for a balance that was to be corrected."""
    results = tables.reconstruction_results
    connection.execute(
        update(results)
        .where(results.c.reconstruction_id == reconstruction_id, results.c.balance_key == balance_key)
        .values(verdict=verdict, remark=remark)
    )


def end_reconstruction(
    connection: Connection, reconstruction_id: int, *, status: Literal["ended", "rejected"] = "ended"
) -> Reconstruction:
    """End a reconstruction: nothing more is corrected by it. A second call changes nothing."""
    reconstructions = tables.reconstructions
    connection.execute(
        update(reconstructions)
        .where(
            reconstructions.c.reconstruction_id == reconstruction_id,
            reconstructions.c.status.in_(["open", "proposed"]),
        )
        .values(status=status, ended_at=func.clock_timestamp())
    )
    return find_reconstruction(connection, reconstruction_id)
