"""The units of work of a reconstruction. Each is safe to run again: a corrected balance is not corrected twice."""

from __future__ import annotations

from typing import Literal

from prefect import task

from ledger_db.attach.migrate import require_current
from ledger_db.correction import corrections, driver, proposals, reconstructions
from ledger_db.correction.driver import ReconstructionReport
from ledger_db.correction.reconstructions import Mode, Reconstruction, Selection
from ledger_db.evidence import approvals
from ledger_db.evidence.approvals import Approval
from ledger_db.server.connections import ledger_engine, transaction
from ledger_db.settings import get_settings
from tasks.each import for_each
from tasks.retries import LEDGER_TASK


@task(**LEDGER_TASK)
def find_resumable(flow_run_id: str) -> Reconstruction | None:
    """The reconstruction that this flow run was applying when it was interrupted, or None."""
    with transaction() as connection:
        require_current(connection)
        return proposals.find_resumable(connection, flow_run_id)


@task(**LEDGER_TASK)
def open_reconstruction(
    balance_ids: list[str] | None,
    selection: Selection,
    *,
    mode: Mode,
    reason: str,
    proposed_by: str,
    flow_run_id: str,
) -> tuple[Reconstruction, list[str]]:
    """Open a reconstruction and return it with the ids of its balances.

    Raises:
        NothingSelected: no balance is selected.
    """
    with transaction() as connection:
        chosen = reconstructions.select_balances(connection, selection, balance_ids)
        opened = reconstructions.open_reconstruction(
            connection, mode=mode, selection=selection, reason=reason, proposed_by=proposed_by, flow_run_id=flow_run_id
        )
    return opened, chosen


@task(**LEDGER_TASK)
def recalculate_balances(reconstruction_id: int, balance_ids: list[str]) -> None:
    """Recalculate some balances, each at one instant of its own, and store the results.

    Raises:
        BatchFailed: names each balance that failed and why.
    """

    with transaction() as connection:
        reconstruction = reconstructions.find_reconstruction(connection, reconstruction_id)

    def recalculate(balance_id: str) -> None:
        driver.examine_balance(ledger_engine(), reconstruction, balance_id)

    for_each(recalculate, balance_ids)


@task(**LEDGER_TASK)
def seal(reconstruction_id: int) -> ReconstructionReport:
    """Store one hash of all figures to correct, and the reasons why they need an approval, if any."""
    settings = get_settings()
    with transaction() as connection:
        proposals.seal(
            connection, reconstruction_id, limits=settings.approval_limits, balance_limit=settings.approval_balances
        )
    return read_report(reconstruction_id)


@task(**LEDGER_TASK)
def find_approval(proposal: Reconstruction) -> Approval | None:
    """An approval of exactly these figures that exists already, for instance from the command line, or None."""
    with transaction() as connection:
        return proposals.find_approval(connection, proposal, within_hours=get_settings().approval_hours)


@task(**LEDGER_TASK)
def find_others_proposing(proposal: Reconstruction) -> list[str]:
    """The ids of the flow runs that proposed the same figures and may be waiting for their approval."""
    with transaction() as connection:
        return proposals.others_proposing(connection, proposal)


@task(**LEDGER_TASK)
def count_decisions(proposal: Reconstruction) -> int:
    """The number of decisions about these figures that came through the form of this flow run."""
    with transaction() as connection:
        return approvals.decision_count(connection, proposal, channel="form")


@task(**LEDGER_TASK)
def decide(
    proposal: Reconstruction, decision: Literal["approved", "rejected"], decided_by: str, remark: str, channel: str
) -> Approval:
    """Store a user's decision. A rejected reconstruction ends."""
    with transaction() as connection:
        approval = approvals.decide(
            connection, proposal, decision=decision, decided_by=decided_by, remark=remark, channel=channel
        )
        if approval.decision == "rejected":
            reconstructions.end_reconstruction(connection, proposal.reconstruction_id, status="rejected")
    return approval


@task(**LEDGER_TASK)
def begin_applying(reconstruction_id: int, approval_id: int | None) -> None:
    """Mark the reconstruction as being applied, under the approval it needs, if any."""
    with transaction() as connection:
        proposals.begin_applying(connection, reconstruction_id, approval_id)


@task(**LEDGER_TASK)
def correct_balances(reconstruction_id: int, balance_ids: list[str]) -> None:
    """Correct some balances, each in a transaction of its own. A refusal is stored with its reason.

    Raises:
        BatchFailed: names each balance that failed and why.
    """

    def correct(balance_id: str) -> None:
        with transaction() as connection:
            corrections.correct_balance(connection, reconstruction_id, balance_id)

    for_each(correct, balance_ids)


@task(**LEDGER_TASK)
def end_reconstruction(reconstruction_id: int) -> ReconstructionReport:
    """End the reconstruction."""
    return driver.end(ledger_engine(), reconstruction_id)


def read_report(reconstruction_id: int) -> ReconstructionReport:
    """The reconstruction as it is stored now."""
    return driver.read_report(ledger_engine(), reconstruction_id)
