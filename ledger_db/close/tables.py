"""Runs with what each collected, wrote and proved."""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Date,
    DateTime,
    Enum,
    ForeignKey,
    Identity,
    Index,
    PrimaryKeyConstraint,
    String,
    Table,
    Text,
    Time,
    func,
    text,
)

from ledger_db.core.amounts import PART_COLUMNS
from ledger_db.core.metadata import EOD_SCHEMA, Money, PgSnapshot, metadata, money_columns

# This project's own ---------------------------------------------------------------------------------------------------

run_kind = Enum("close", "interim", name="run_kind", schema=EOD_SCHEMA, metadata=metadata)

#: open → certified (for good) or open → abandoned (its rows are removed)
run_status = Enum("open", "certified", "abandoned", name="run_status", schema=EOD_SCHEMA, metadata=metadata)

runs = Table(
    "runs",
    metadata,
    Column("run_id", BigInteger, Identity(), primary_key=True),
    Column("business_date", Date, nullable=False),
    Column("kind", run_kind, nullable=False),
    Column("status", run_status, nullable=False, server_default=text("'open'")),
    Column("time_zone", Text, nullable=False),
    Column("cut_off", Time, nullable=False),
    Column("opens_at", DateTime(timezone=True), nullable=False),
    Column("closes_at", DateTime(timezone=True), nullable=False),
    Column("cut", PgSnapshot, nullable=False),
    Column("system_identifier", Text, nullable=False),
    Column("base_run_id", BigInteger, ForeignKey("ledger_eod.runs.run_id")),
    # The run without base that this chain of runs starts from; activity adds up along one chain only.
    Column("genesis_run_id", BigInteger, nullable=False),
    Column("max_balance_key", BigInteger, nullable=False),
    Column("caught_up", Boolean, nullable=False, server_default=text("false")),
    Column("opened_at", DateTime(timezone=True), nullable=False, server_default=func.now()),
    Column("collected_at", DateTime(timezone=True)),
    Column("certified_at", DateTime(timezone=True)),
    Column("snapshot_count", BigInteger),
    Column("checksum", String(64)),
    Column("refusal", Text),  # why it was not certified the last time it was tried
    # runs.newest_certified_close: closes by the instant they end at
    Index("ix_runs_closes_at", "kind", "status", "closes_at"),
    # one close per business date, one close at work at a time
    Index(
        "uq_runs_close_business_date",
        "business_date",
        unique=True,
        postgresql_where=text("kind = 'close'::ledger_eod.run_kind AND status <> 'abandoned'::ledger_eod.run_status"),
    ),
    Index(
        "uq_runs_open_close",
        "kind",
        unique=True,
        postgresql_where=text("kind = 'close'::ledger_eod.run_kind AND status = 'open'::ledger_eod.run_status"),
    ),
    schema=EOD_SCHEMA,
)

activity = Table(
    "activity",
    metadata,
    # No foreign keys, as for balance_snapshots.
    Column("run_id", BigInteger, primary_key=True, autoincrement=False),
    Column("balance_key", BigInteger, primary_key=True, autoincrement=False),
    Column("effective_date", Date, primary_key=True),
    Column("is_late", Boolean, nullable=False),
    Column("posting_count", BigInteger, nullable=False),
    *money_columns(PART_COLUMNS),
    Column("last_transaction_key", BigInteger),
    # balance_at.sql: late arrivals of one balance, collected by later runs
    Index("ix_activity_late", "balance_key", "effective_date", "run_id", postgresql_where=text("is_late")),
    schema=EOD_SCHEMA,
)

balance_snapshots = Table(
    "balance_snapshots",
    metadata,
    # No foreign keys: their checks take five times as long as the row and lock rows of the live ledger. Rows come from
    # blnk.balances by INSERT … SELECT, balances are never deleted, and certification counts both sides.
    Column("run_id", BigInteger, nullable=False),
    Column("balance_key", BigInteger, nullable=False),
    Column("last_transaction_key", BigInteger),
    Column("business_date", Date, nullable=False),
    Column("kind", run_kind, nullable=False),
    *money_columns(PART_COLUMNS),
    # At most one row per balance, date and kind; rows of a date lie together, in key order.
    PrimaryKeyConstraint("business_date", "kind", "balance_key"),
    schema=EOD_SCHEMA,
    postgresql_partition_by="RANGE (business_date)",
)

run_totals = Table(
    "run_totals",
    metadata,
    Column("run_id", BigInteger, ForeignKey(runs.c.run_id), primary_key=True, autoincrement=False),
    Column("currency", Text, primary_key=True),
    Column("balance_count", BigInteger, nullable=False),
    *money_columns(PART_COLUMNS),
    # credit minus debit that the itemised exceptions of this run and its base runs explain
    Column("itemised_difference", Money, nullable=False),
    Column("itemised_inflight_difference", Money, nullable=False),
    schema=EOD_SCHEMA,
)

run_exceptions = Table(
    "run_exceptions",
    metadata,
    Column("run_id", BigInteger, ForeignKey(runs.c.run_id), primary_key=True, autoincrement=False),
    Column("transaction_key", BigInteger, primary_key=True, autoincrement=False),
    Column("currency", Text, primary_key=True),
    Column("cause", Text, nullable=False),
    Column("difference", Money, nullable=False),
    Column("inflight_difference", Money, nullable=False),
    schema=EOD_SCHEMA,
)

row_checksums = Table(
    "row_checksums",
    metadata,
    # No foreign keys, as for activity.
    Column("run_id", BigInteger, primary_key=True, autoincrement=False),
    Column("effective_date", Date, primary_key=True),
    Column("transaction_count", BigInteger, nullable=False),
    Column("posted_amount", Money, nullable=False),
    Column("held_amount", Money, nullable=False),
    Column("checksum", Text, nullable=False),
    schema=EOD_SCHEMA,
)
