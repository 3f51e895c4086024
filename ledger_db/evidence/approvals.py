"""Approvals: who decided about which figures, when and through which channel. No orchestrator's record is evidence.

An approval is about figures, named by their hash. Whether it is used already is known where the figures are.
"""

from __future__ import annotations

import unicodedata
from dataclasses import dataclass, fields
from datetime import datetime, timedelta
from typing import Final, Literal, Protocol

from sqlalchemy import Connection, exists, func, insert, select

from ledger_db.evidence import tables

Decision = Literal["approved", "rejected", "refused"]


class Decidable(Protocol):
    """What a person decides about: figures, who proposed them, and in which flow run."""

    @property
    def figures_hash(self) -> str | None:
        """SHA-256 over every difference that would be corrected."""

    @property
    def proposed_by(self) -> str:
        """Who proposed them, and may not approve them; empty: no name was given."""

    @property
    def flow_run_id(self) -> str | None:
        """The orchestrator's run, if one proposed them."""


@dataclass(frozen=True)
class Approval:
    """A decision about figures. ``refused``: this person may not approve them; ``remark`` has the reason."""

    approval_id: int
    figures_hash: str
    decision: Decision
    decided_by: str
    proposed_by: str
    channel: str
    remark: str
    flow_run_id: str | None
    decided_at: datetime


_COLUMNS: Final = [tables.approvals.c[field.name] for field in fields(Approval)]


def decide(
    connection: Connection,
    proposal: Decidable,
    *,
    decision: Literal["approved", "rejected"],
    decided_by: str,
    channel: str,
    remark: str = "",
) -> Approval:
    """Store a decision about a proposal's figures; one that does not count is stored as refused, with the reason."""
    why_not = ""
    if not is_named(decided_by):
        why_not = "an approval is evidence: it needs the name of who approves"
    elif same_person(decided_by, proposal.proposed_by) and decision == "approved":
        why_not = f"{decided_by.strip()} proposed this: somebody else must approve it"
    row = connection.execute(
        insert(tables.approvals)
        .values(
            figures_hash=proposal.figures_hash,
            decision="refused" if why_not else decision,
            decided_by=decided_by.strip(),
            proposed_by=proposal.proposed_by,
            channel=channel,
            remark=why_not or remark.strip(),
            flow_run_id=proposal.flow_run_id,
        )
        .returning(*_COLUMNS)
    ).one()
    return Approval(**row._mapping)


def same_person(one: str, other: str) -> bool:
    """Whether two names, both given, are the same, ignoring case, white space and invisible characters."""
    return _spelled(one) == _spelled(other) != ""


def is_named(name: str) -> bool:
    """Whether a name is given: more than white space and invisible characters."""
    return bool(_spelled(name))


def _spelled(name: str) -> str:
    """A name in one spelling: composed letters, no case, single spaces, no invisible characters."""
    seen = (sign for sign in unicodedata.normalize("NFKC", name) if unicodedata.category(sign) != "Cf")
    return " ".join("".join(seen).split()).casefold()


def approvals_of(connection: Connection, proposal: Decidable, *, within: timedelta) -> list[Approval]:
    """The approvals of a proposal's figures by other people than its proposer that are not too old, newest first.

    A later rejection of the figures revokes an approval. Used ones are included.
    """
    approvals, later = tables.approvals, tables.approvals.alias("later")
    rows = connection.execute(
        select(*_COLUMNS)
        .where(
            approvals.c.figures_hash == proposal.figures_hash,
            approvals.c.decision == "approved",
            approvals.c.decided_at > func.clock_timestamp() - within,
            ~exists().where(
                later.c.figures_hash == approvals.c.figures_hash,
                later.c.decision == "rejected",
                later.c.approval_id > approvals.c.approval_id,
            ),
        )
        .order_by(approvals.c.approval_id.desc())
    )
    given = (Approval(**row._mapping) for row in rows)
    return [approval for approval in given if not same_person(approval.decided_by, proposal.proposed_by)]


def is_approval_of(connection: Connection, approval_id: int, proposal: Decidable) -> bool:
    """Whether a decision approves exactly a proposal's figures."""
    approvals = tables.approvals
    return bool(
        connection.scalar(
            select(func.count()).where(
                approvals.c.approval_id == approval_id,
                approvals.c.decision == "approved",
                approvals.c.figures_hash == proposal.figures_hash,
            )
        )
    )


def decision_count(connection: Connection, proposal: Decidable, *, channel: str) -> int:
    """How often the proposal's flow run got a decision about these figures through a channel, refused ones included."""
    if proposal.flow_run_id is None:
        return 0
    approvals = tables.approvals
    count = connection.scalar(
        select(func.count()).where(
            approvals.c.flow_run_id == proposal.flow_run_id,
            approvals.c.figures_hash == proposal.figures_hash,
            approvals.c.channel == channel,
        )
    )
    return int(count or 0)
