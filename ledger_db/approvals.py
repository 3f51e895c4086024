"""Approvals: who decided about which figures, when and by what way. Kept here: no orchestrator's record is evidence.

An approval is about figures, named by their hash. It counts for the reconstruction that uses it, once, for a while.
"""

from __future__ import annotations

import unicodedata
from dataclasses import dataclass
from datetime import datetime
from typing import Final, Literal

from sqlalchemy import Connection, text

from ledger_db.errors import ApprovalRefused
from ledger_db.reconstructions import COLUMNS as RECONSTRUCTION_COLUMNS
from ledger_db.reconstructions import FROM as RECONSTRUCTION_FROM
from ledger_db.reconstructions import Reconstruction

Decision = Literal["approved", "rejected", "refused"]
COLUMNS: Final = (
    "approval_id, figures_hash, decision, decided_by, proposed_by, channel, remark, flow_run_id, decided_at"
)
HASH_LENGTH: Final = 64


@dataclass(frozen=True)
class Approval:
    """A decision about figures. ``refused``: whoever decided may not approve them; ``remark`` says why."""

    approval_id: int
    figures_hash: str
    decision: Decision
    decided_by: str
    proposed_by: str
    channel: str
    remark: str
    flow_run_id: str | None
    decided_at: datetime


def decide(
    connection: Connection,
    proposal: Reconstruction,
    *,
    decision: Literal["approved", "rejected"],
    decided_by: str,
    channel: str,
    remark: str = "",
) -> Approval:
    """Keep a decision about a proposal's figures; one that must not count is kept as refused, with the reason."""
    why_not = ""
    if not _spelled(decided_by):
        why_not = "an approval is evidence: it needs the name of who approves"
    elif same_person(decided_by, proposal.proposed_by) and decision == "approved":
        why_not = f"{decided_by.strip()} proposed this correction: somebody else must approve it"
    row = connection.execute(
        text(
            f"INSERT INTO ledger_eod.approvals (figures_hash, decision, decided_by, proposed_by, channel, remark, "  # noqa: S608
            "flow_run_id) VALUES (:figures_hash, CAST(:decision AS ledger_eod.approval_decision), :decided_by, "
            f":proposed_by, :channel, :remark, :flow_run_id) RETURNING {COLUMNS}"
        ),
        {
            "figures_hash": proposal.figures_hash,
            "decision": "refused" if why_not else decision,
            "decided_by": decided_by.strip(),
            "proposed_by": proposal.proposed_by,
            "channel": channel,
            "remark": why_not or remark.strip(),
            "flow_run_id": proposal.flow_run_id,
        },
    ).one()
    return Approval(**row._mapping)


def same_person(one: str, other: str) -> bool:
    """Whether two names, both given, are the same, whatever their case, blanks and kind of letters."""
    return _spelled(one) == _spelled(other) != ""


def _spelled(name: str) -> str:
    """A name in one spelling: composed letters, no case, single blanks, nothing that is not seen."""
    seen = (sign for sign in unicodedata.normalize("NFKC", name) if unicodedata.category(sign) != "Cf")
    return " ".join("".join(seen).split()).casefold()


def find_approval(connection: Connection, proposal: Reconstruction, *, within_hours: int) -> Approval | None:
    """The newest approval of a proposal's figures by somebody else, if it is not used yet and not too old.

    A later rejection of the figures takes it back.
    """
    rows = connection.execute(
        text(
            f"SELECT {COLUMNS} FROM ledger_eod.approvals WHERE figures_hash = :figures_hash AND decision = 'approved' "  # noqa: S608
            "AND decided_at > clock_timestamp() - make_interval(hours => :within_hours) "
            "AND NOT EXISTS (SELECT FROM ledger_eod.reconstructions "
            "WHERE reconstructions.approval_id = approvals.approval_id) "
            "AND NOT EXISTS (SELECT FROM ledger_eod.approvals AS later WHERE later.figures_hash = :figures_hash "
            "AND later.decision = 'rejected' AND later.approval_id > approvals.approval_id) ORDER BY approval_id DESC"
        ),
        {"figures_hash": proposal.figures_hash, "within_hours": within_hours},
    )
    approvals = (Approval(**row._mapping) for row in rows)
    return next((each for each in approvals if not same_person(each.decided_by, proposal.proposed_by)), None)


def find_proposal(connection: Connection, hash_or_start: str) -> Reconstruction:
    """The newest reconstruction whose figures have this hash; its first twelve digits are enough.

    Raises:
        ApprovalRefused: there is none, the digits fit several figures, or it was applied or rejected already.
    """
    wanted = hash_or_start.strip().lower()
    if not wanted or set(wanted) - set("0123456789abcdef") or not 12 <= len(wanted) <= HASH_LENGTH:
        raise ApprovalRefused(f"{hash_or_start!r} is no hash of figures: give 12 to {HASH_LENGTH} hexadecimal digits")
    rows = connection.execute(
        text(
            f"SELECT DISTINCT ON (reconstructions.figures_hash) {RECONSTRUCTION_COLUMNS} {RECONSTRUCTION_FROM} "
            "WHERE reconstructions.figures_hash >= :wanted AND reconstructions.figures_hash < :wanted || 'g' "
            "ORDER BY reconstructions.figures_hash, reconstruction_id DESC"
        ),
        {"wanted": wanted},
    ).all()
    if len(rows) != 1:
        found = "several proposals have" if rows else "no proposal has"
        raise ApprovalRefused(f"{found} figures with the hash {wanted}; reconstruct without --approve shows them")
    proposal = Reconstruction(**rows[0]._mapping)
    if proposal.applying_at is not None:
        raise ApprovalRefused(
            f"{proposal.name} was applied with these figures already, approved by {proposal.approved_by or 'nobody'}; "
            "propose it again if the difference is back"
        )
    if proposal.status == "rejected":
        raise ApprovalRefused(f"{proposal.name} with these figures was rejected; propose it again")
    return proposal


def others_proposing(connection: Connection, proposal: Reconstruction) -> list[str]:
    """The flow runs that proposed the same figures and have not applied them: one of them may be waiting already."""
    return list(
        connection.scalars(
            text(
                "SELECT DISTINCT flow_run_id FROM ledger_eod.reconstructions WHERE figures_hash = :figures_hash "
                "AND status = 'proposed' AND mode = 'apply' AND applying_at IS NULL AND flow_run_id <> :flow_run_id"
            ),
            {"figures_hash": proposal.figures_hash, "flow_run_id": proposal.flow_run_id},
        )
    )


def decision_count(connection: Connection, proposal: Reconstruction, *, channel: str) -> int:
    """How often the proposal's flow run was given a decision about these figures by this way, refused ones too."""
    return int(
        connection.scalar(
            text(
                "SELECT count(*) FROM ledger_eod.approvals WHERE flow_run_id = :flow_run_id "
                "AND figures_hash = :figures_hash AND channel = :channel"
            ),
            {"flow_run_id": proposal.flow_run_id, "figures_hash": proposal.figures_hash, "channel": channel},
        )
        or 0
    )
