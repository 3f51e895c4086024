"""A whole reconstruction without an orchestrator: the steps that the flow runs as tasks, one after the other."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal

from sqlalchemy import Engine

from ledger_db.correction import corrections, proposals, reconstructions
from ledger_db.correction.corrections import Correction
from ledger_db.correction.recalculation import Outcome, Result, examine
from ledger_db.correction.reconstructions import Mode, Reconstruction, Selection
from ledger_db.errors import ApprovalRefused
from ledger_db.evidence import approvals
from ledger_db.evidence.approvals import Approval
from ledger_db.server.connections import one_instant
from ledger_db.settings import get_settings

#: Called after each balance with its id and its outcome so far.
Progress = Callable[[str, Outcome], None]


@dataclass(frozen=True)
class ReconstructionReport:
    """A reconstruction as it stands: the result for each balance, largest difference first, and its corrections."""

    reconstruction: Reconstruction
    results: list[Result]
    corrections: list[Correction]

    @property
    def proposed(self) -> list[Result]:
        """The results that are still to be corrected."""
        return [result for result in self.results if result.verdict == "correct"]


def reconstruct(
    engine: Engine,
    balance_ids: Sequence[str] | None = None,
    *,
    selection: Selection = "given",
    mode: Mode = "report",
    reason: str = "",
    proposed_by: str = "",
    approved_by: str | None = None,
    flow_run_id: str | None = None,
    limits: Mapping[str, Decimal] | None = None,
    balance_limit: int | None = None,
) -> ReconstructionReport:
    """Propose corrections of balances and, in mode apply, make them; each step in a transaction of its own.

    Without a difference to correct, nothing is applied. Where an approval is needed, it is given in the name of
    ``approved_by``; if that is None, one that was given before is used, and without one the proposal is returned and
    stays open to an approval. ``limits``, ``balance_limit``: as for :func:`propose`.

    Raises:
        ApprovalRefused: ``approved_by`` may not approve these figures.
        ReconstructionRefused: it cannot be done as asked.
        UnknownBalance: one that is given does not exist.
    """
    proposal = propose(
        engine, balance_ids, selection=selection, mode=mode, reason=reason, proposed_by=proposed_by,
        flow_run_id=flow_run_id, limits=limits, balance_limit=balance_limit,
    )  # fmt: skip
    proposed = read_report(engine, proposal.reconstruction_id)
    if mode == "report" and proposed.proposed:
        return proposed  # stays open to an approval of its figures
    if mode == "report" or not (proposed.proposed or selection == "requested"):
        return end(engine, proposal.reconstruction_id)
    approval_id = None
    if proposal.approval_reasons:
        approval = _approval_of(engine, proposal, approved_by)
        if approval is None:
            return proposed
        approval_id = approval.approval_id
    with engine.begin() as connection:
        proposals.begin_applying(connection, proposal.reconstruction_id, approval_id)
    return apply(engine, proposal.reconstruction_id)


def propose(
    engine: Engine,
    balance_ids: Sequence[str] | None = None,
    *,
    selection: Selection = "given",
    mode: Mode = "report",
    reason: str = "",
    proposed_by: str = "",
    flow_run_id: str | None = None,
    limits: Mapping[str, Decimal] | None = None,
    balance_limit: int | None = None,
    progress: Progress | None = None,
) -> Reconstruction:
    """Recalculate balances, each at one instant of its own, and seal what is to be corrected.

    ``limits``, ``balance_limit``: up to which corrections need no approval, as for :func:`proposals.seal`; None: the
    settings. Touches no balance.

    Raises:
        ReconstructionRefused: it cannot be done as asked.
        UnknownBalance: one that is given does not exist.
    """
    with engine.begin() as connection:
        chosen = reconstructions.select_balances(connection, selection, balance_ids)
        opened = reconstructions.open_reconstruction(
            connection, mode=mode, selection=selection, reason=reason, proposed_by=proposed_by, flow_run_id=flow_run_id
        )
    for balance_id in chosen:
        result = examine_balance(engine, opened, balance_id)
        if progress is not None:
            progress(balance_id, result.verdict)
    with engine.begin() as connection:
        return proposals.seal(
            connection,
            opened.reconstruction_id,
            limits=get_settings().approval_limits if limits is None else limits,
            balance_limit=get_settings().approval_balances if balance_limit is None else balance_limit,
        )


def examine_balance(engine: Engine, reconstruction: Reconstruction, balance_id: str) -> Result:
    """Recalculate one balance at one instant and store the result.

    Raises:
        UnknownBalance: there is none of this id.
    """
    with one_instant(engine) as connection:
        result = examine(connection, balance_id, reconstructions.base_of(connection, reconstruction))
    with engine.begin() as connection:
        reconstructions.store_result(connection, reconstruction.reconstruction_id, result)
    return result


def _approval_of(engine: Engine, proposal: Reconstruction, approved_by: str | None) -> Approval | None:
    """An approval given in this person's name, or for None one that was given before."""
    with engine.begin() as connection:
        if approved_by is None:
            return proposals.find_approval(connection, proposal, within_hours=get_settings().approval_hours)
        approval = approvals.decide(
            connection, proposal, decision="approved", decided_by=approved_by, channel="driver"
        )  # fmt: skip
    if approval.decision != "approved":  # the decision is kept, with the reason
        raise ApprovalRefused(approval.remark)
    return approval


def apply(engine: Engine, reconstruction_id: int, *, progress: Progress | None = None) -> ReconstructionReport:
    """Correct what is still to be corrected, answer what was requested, and end the reconstruction.

    Each balance in a transaction of its own: where a balance fails, what was corrected before stays, and a second call
    corrects the rest.

    Raises:
        ReconstructionRefused: this reconstruction is not being applied.
        StaleFigures: a balance does not prove after its correction.
    """
    report = read_report(engine, reconstruction_id)
    wanted = {"correct", "agrees"} if report.reconstruction.selection == "requested" else {"correct"}
    for result in report.results:
        if result.verdict in wanted:
            with engine.begin() as connection:
                outcome = corrections.correct_balance(connection, reconstruction_id, result.balance_id)
            if progress is not None:
                progress(result.balance_id, outcome)
    return end(engine, reconstruction_id)


def end(engine: Engine, reconstruction_id: int) -> ReconstructionReport:
    """End a reconstruction and read its results."""
    with engine.begin() as connection:
        reconstructions.end_reconstruction(connection, reconstruction_id)
    return read_report(engine, reconstruction_id)


def read_report(engine: Engine, reconstruction_id: int) -> ReconstructionReport:
    """A reconstruction as it stands.

    Raises:
        UnknownReconstruction: there is none.
    """
    with engine.begin() as connection:
        return ReconstructionReport(
            reconstructions.find_reconstruction(connection, reconstruction_id),
            reconstructions.results_of(connection, reconstruction_id),
            corrections.list_corrections(connection, reconstruction_id=reconstruction_id, limit=1_000_000),
        )
