"""Reconstructions, their results, and the append-only log of corrections."""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    Column,
    DateTime,
    Enum,
    ForeignKey,
    Identity,
    Index,
    String,
    Table,
    Text,
    UniqueConstraint,
    func,
    text,
)
from sqlalchemy.dialects.postgresql import ARRAY, JSONB

from ledger_db.close.tables import runs
from ledger_db.core.amounts import AMOUNT_COLUMNS, prefixed
from ledger_db.core.metadata import EOD_SCHEMA, Money, metadata, money_columns
from ledger_db.evidence.tables import approvals

reconstructions = Table(
    "reconstructions",
    metadata,
    Column("reconstruction_id", BigInteger, Identity(), primary_key=True),
    Column("mode", Enum("report", "apply", name="reconstruction_mode", schema=EOD_SCHEMA), nullable=False),
    Column("selection", Text, nullable=False),
    Column("reason", Text, nullable=False),
    Column("proposed_by", Text, nullable=False),
    Column("flow_run_id", Text),
    Column(
        "status",
        Enum("open", "proposed", "ended", "rejected", "superseded", name="reconstruction_status", schema=EOD_SCHEMA),
        nullable=False,
        server_default=text("'open'"),
    ),
    Column("base_run_id", BigInteger, ForeignKey(runs.c.run_id)),
    # Over every difference that is to be corrected; an approval is for one hash.
    Column("figures_hash", String(64)),
    Column("approval_reasons", ARRAY(Text)),
    # Unique: an approval is used by one reconstruction.
    Column("approval_id", BigInteger, ForeignKey(approvals.c.approval_id), unique=True),
    Column("applying_at", DateTime(timezone=True)),
    Column("started_at", DateTime(timezone=True), nullable=False, server_default=func.clock_timestamp()),
    Column("ended_at", DateTime(timezone=True)),
    # proposals.find_proposal: the newest proposal of some figures
    Index("ix_reconstructions_figures_hash", "figures_hash", "reconstruction_id"),
    # proposals.find_resumable: the reconstruction of an interrupted flow run
    Index("ix_reconstructions_flow_run_id", "flow_run_id", "reconstruction_id"),
    schema=EOD_SCHEMA,
)

reconstruction_results = Table(
    "reconstruction_results",
    metadata,
    Column(
        "reconstruction_id",
        BigInteger,
        ForeignKey(reconstructions.c.reconstruction_id),
        primary_key=True,
        autoincrement=False,
    ),
    Column("balance_key", BigInteger, primary_key=True, autoincrement=False),
    Column("balance_id", Text, nullable=False),
    Column("currency", Text, nullable=False),
    Column("version", BigInteger, nullable=False),
    Column(
        "verdict",
        Enum("agrees", "correct", "corrected", "refused", "stale", name="reconstruction_verdict", schema=EOD_SCHEMA),
        nullable=False,
    ),
    Column("cause", Text),
    Column("evidence", JSONB, nullable=False),
    Column("remark", Text, nullable=False),
    *money_columns(prefixed("previous_", AMOUNT_COLUMNS)),
    *money_columns(prefixed("recalculated_", AMOUNT_COLUMNS)),
    Column("gross_difference", Money, nullable=False),
    Column("executed_at", DateTime(timezone=True), nullable=False),
    schema=EOD_SCHEMA,
)

corrections = Table(
    "corrections",
    metadata,
    Column("correction_id", BigInteger, Identity(), primary_key=True),
    Column("reconstruction_id", BigInteger, ForeignKey(reconstructions.c.reconstruction_id), nullable=False),
    Column("balance_key", BigInteger, nullable=False),
    Column("balance_id", Text, nullable=False),
    Column("currency", Text, nullable=False),
    Column("previous_version", BigInteger, nullable=False),
    *money_columns(prefixed("previous_", AMOUNT_COLUMNS)),
    Column("corrected_version", BigInteger, nullable=False),
    *money_columns(prefixed("corrected_", AMOUNT_COLUMNS)),
    Column("cause", Text, nullable=False),
    Column("evidence", JSONB, nullable=False),
    Column("reason", Text, nullable=False),
    Column("proposed_by", Text, nullable=False),
    Column("approved_by", Text),
    Column("approval_id", BigInteger, ForeignKey(approvals.c.approval_id)),
    Column("figures_hash", String(64), nullable=False),
    # The newest certified close at the time, and the orchestrator's run.
    Column("base_run_id", BigInteger),
    Column("flow_run_id", Text),
    # When the stored row was last seen to agree, NULL: not known. It may have differed from then to corrected_at.
    Column("drifted_since", DateTime(timezone=True)),
    Column("corrected_at", DateTime(timezone=True), nullable=False, server_default=func.clock_timestamp()),
    UniqueConstraint("reconstruction_id", "balance_key"),
    # history.balance_at, daily_balances: the corrections of a balance
    Index("ix_corrections_balance_key", "balance_key", "corrected_at"),
    schema=EOD_SCHEMA,
)
