"""Proposals: the differences that a reconstruction would correct, under one hash, and the approval that they may need.

An approval is about figures, named by their hash. It is used by one reconstruction, once, within a limited time.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from datetime import timedelta
from decimal import Decimal
from typing import Final

from sqlalchemy import Connection, func, select, update
from sqlalchemy.dialects.postgresql import distinct_on
from sqlalchemy.exc import IntegrityError

from ledger_db.core.amounts import plain, total
from ledger_db.correction import tables
from ledger_db.correction.recalculation import Result
from ledger_db.correction.reconstructions import (
    Reconstruction,
    find_reconstruction,
    results_of,
    select_reconstructions,
)
from ledger_db.errors import ApprovalRefused, Hint, ReconstructionRefused, UnknownProposal
from ledger_db.evidence.approvals import Approval, approvals_of, is_approval_of

HASH_LENGTH: Final = 64
SHORTEST_HASH: Final = 12


def seal(
    connection: Connection, reconstruction_id: int, *, limits: Mapping[str, Decimal], balance_limit: int
) -> Reconstruction:
    """Seal the differences that are to be corrected under one hash, and store why they need an approval, if they do.

    ``limits``: per currency, the gross difference, in minor units, up to which corrections go without an approval; a
    currency that is not there has the limit 0. ``balance_limit``: how many balances may be corrected without one.
    """
    proposed = results_of(connection, reconstruction_id, verdict="correct")
    reconstructions = tables.reconstructions
    connection.execute(
        update(reconstructions)
        .where(reconstructions.c.reconstruction_id == reconstruction_id, reconstructions.c.status == "open")
        .values(
            status="proposed",
            figures_hash=figures_hash(proposed),
            approval_reasons=approval_reasons(proposed, limits=limits, balance_limit=balance_limit),
        )
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
    currencies = sorted({each.currency for each in results})
    return {
        currency: total(each.gross_difference for each in results if each.currency == currency)
        for currency in currencies
    }


def approval_reasons(proposed: Sequence[Result], *, limits: Mapping[str, Decimal], balance_limit: int) -> list[str]:
    """Why corrections must be approved before they are made; empty: they need no approval."""
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


def find_approval(connection: Connection, proposal: Reconstruction, *, within_hours: int) -> Approval | None:
    """The newest approval of a proposal's figures by another person, if it is not used yet and not too old.

    A later rejection of the figures revokes it.
    """
    given = approvals_of(connection, proposal, within=timedelta(hours=within_hours))
    reconstructions = tables.reconstructions
    used = set(
        connection.scalars(
            select(reconstructions.c.approval_id).where(
                reconstructions.c.approval_id.in_([approval.approval_id for approval in given])
            )
        )
    )
    return next((approval for approval in given if approval.approval_id not in used), None)


def find_proposal(connection: Connection, hash_or_start: str) -> Reconstruction:
    """The newest reconstruction whose figures have this hash; its first twelve digits are enough.

    Raises:
        ApprovalRefused: these are no such digits, they fit several figures, or it was applied or rejected already.
        UnknownProposal: there is none.
    """
    wanted = hash_or_start.strip().lower()
    if not wanted or set(wanted) - set("0123456789abcdef") or not SHORTEST_HASH <= len(wanted) <= HASH_LENGTH:
        raise ApprovalRefused(
            f"{hash_or_start!r} is no hash of figures: give {SHORTEST_HASH} to {HASH_LENGTH} hexadecimal digits"
        )
    reconstructions = tables.reconstructions
    rows = connection.execute(
        select_reconstructions()
        .where(reconstructions.c.figures_hash >= wanted, reconstructions.c.figures_hash < f"{wanted}g")
        .ext(distinct_on(reconstructions.c.figures_hash))
        .order_by(reconstructions.c.figures_hash, reconstructions.c.reconstruction_id.desc())
    ).all()
    if not rows:
        raise UnknownProposal(f"no proposal has figures with the hash {wanted}", hint=Hint.show_proposal)
    if len(rows) > 1:
        raise ApprovalRefused(f"several proposals have figures with the hash {wanted}", hint=Hint.show_proposal)
    proposal = Reconstruction(**rows[0]._mapping)
    if proposal.applying_at is not None:
        raise ApprovalRefused(
            f"{proposal.name} was applied with these figures already, approved by {proposal.approved_by or 'nobody'}",
            hint=Hint.propose_again,
        )
    if proposal.status == "rejected":
        raise ApprovalRefused(f"{proposal.name} with these figures was rejected", hint=Hint.propose_again)
    return proposal


def others_proposing(connection: Connection, proposal: Reconstruction) -> list[str]:
    """The flow runs that proposed the same figures and have not applied them: one of them may be waiting already."""
    if proposal.flow_run_id is None:
        return []
    reconstructions = tables.reconstructions
    return list(
        connection.scalars(
            select(reconstructions.c.flow_run_id)
            .distinct()
            .where(
                reconstructions.c.figures_hash == proposal.figures_hash,
                reconstructions.c.status == "proposed",
                reconstructions.c.mode == "apply",
                reconstructions.c.applying_at.is_(None),
                reconstructions.c.flow_run_id != proposal.flow_run_id,
            )
        )
    )


def find_resumable(connection: Connection, flow_run_id: str | None) -> Reconstruction | None:
    """The reconstruction that a flow run was applying when it was interrupted: its approval holds for what is left."""
    if flow_run_id is None:
        return None
    reconstructions = tables.reconstructions
    row = connection.execute(
        select_reconstructions()
        .where(
            reconstructions.c.flow_run_id == flow_run_id,
            reconstructions.c.status == "proposed",
            reconstructions.c.applying_at.is_not(None),
        )
        .order_by(reconstructions.c.reconstruction_id.desc())
        .limit(1)
    ).one_or_none()
    return None if row is None else Reconstruction(**row._mapping)


def begin_applying(connection: Connection, reconstruction_id: int, approval_id: int | None) -> Reconstruction:
    """Use an approval, where one is needed, for this reconstruction and no other, and let its corrections begin.

    Raises:
        ReconstructionRefused: it is not proposed, or it is a report.
        ApprovalRefused: it needs an approval and has none, or this is none of its figures, or was used before.
    """
    reconstruction = find_reconstruction(connection, reconstruction_id)
    if reconstruction.status != "proposed" or reconstruction.mode != "apply":
        raise ReconstructionRefused(f"{reconstruction.name} is {reconstruction.status}, to {reconstruction.mode}")
    if reconstruction.approval_reasons and approval_id is None:
        raise ApprovalRefused(f"{reconstruction.name} needs an approval: {'; '.join(reconstruction.approval_reasons)}")
    if approval_id is not None and not is_approval_of(connection, approval_id, reconstruction):
        raise ApprovalRefused(f"this is no approval of the figures of {reconstruction.name}")
    reconstructions = tables.reconstructions
    try:
        with connection.begin_nested():
            connection.execute(
                update(reconstructions)
                .where(reconstructions.c.reconstruction_id == reconstruction_id)
                .values(approval_id=approval_id, applying_at=func.clock_timestamp())
            )
    except IntegrityError:
        raise ApprovalRefused("this approval was used before: an approval is good for one reconstruction") from None
    return find_reconstruction(connection, reconstruction_id)
