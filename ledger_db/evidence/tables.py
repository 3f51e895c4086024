"""Approvals."""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    Column,
    DateTime,
    Enum,
    Identity,
    Index,
    String,
    Table,
    Text,
    func,
)

from ledger_db.core.metadata import EOD_SCHEMA, metadata

approvals = Table(
    "approvals",
    metadata,
    Column("approval_id", BigInteger, Identity(), primary_key=True),
    Column("figures_hash", String(64), nullable=False),
    # refused: the person who decided is not allowed to
    Column(
        "decision", Enum("approved", "rejected", "refused", name="approval_decision", schema=EOD_SCHEMA), nullable=False
    ),
    Column("decided_by", Text, nullable=False),
    Column("proposed_by", Text, nullable=False),
    Column("channel", Text, nullable=False),
    Column("remark", Text, nullable=False),
    Column("flow_run_id", Text),
    Column("decided_at", DateTime(timezone=True), nullable=False, server_default=func.clock_timestamp()),
    # approvals.approvals_of: the approvals of some figures
    Index("ix_approvals_figures_hash", "figures_hash", "approval_id"),
    schema=EOD_SCHEMA,
)
