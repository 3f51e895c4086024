"""The tables: the reference ledger's in schema ``blnk``, this project's own in schema ``ledger_eod``.

The migrations write the same tables; a test holds the two together. On an existing Blnk database the ``blnk`` tables
are the application's: only ``transactions.recorded_xid`` and the indexes marked *ours* are added there.

Money is ``numeric`` without limit, in minor units. Instants are ``timestamptz`` in our own tables; the reference's
naive timestamps on transactions are UTC.
"""

from __future__ import annotations

from typing import Any

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
    Integer,
    MetaData,
    Numeric,
    PrimaryKeyConstraint,
    String,
    Table,
    Text,
    Time,
    UniqueConstraint,
    func,
    text,
)
from sqlalchemy.dialects.postgresql import ARRAY, JSONB
from sqlalchemy.types import UserDefinedType

from ledger_db.transaction_indexes import EFFECTIVE_AT, POSTING_COLUMNS

LEDGER_SCHEMA = "blnk"
EOD_SCHEMA = "ledger_eod"
GENERAL_LEDGER_ID = "general_ledger_id"

metadata = MetaData(
    naming_convention={
        "pk": "pk_%(table_name)s",
        "fk": "fk_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "ck": "ck_%(table_name)s_%(constraint_name)s",
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
    }
)


class Xid8(UserDefinedType[str]):
    """A 64-bit transaction id that never wraps; text in Python."""

    cache_ok = True

    def get_col_spec(self, **_: Any) -> str:
        """The type's SQL name."""
        return "xid8"


class PgSnapshot(UserDefinedType[str]):
    """Which transactions were visible at an instant; text ``xmin:xmax:running,…`` in Python."""

    cache_ok = True

    def get_col_spec(self, **_: Any) -> str:
        """The type's SQL name."""
        return "pg_snapshot"


Money = Numeric


# The reference ledger -------------------------------------------------------------------------------------------------

ledgers = Table(
    "ledgers",
    metadata,
    Column("id", BigInteger, Identity(), primary_key=True),
    Column("name", Text),
    Column("ledger_id", Text, nullable=False, unique=True),
    Column("created_at", DateTime, nullable=False, server_default=func.now()),
    Column("meta_data", JSONB),
    schema=LEDGER_SCHEMA,
)

identity = Table(
    "identity",
    metadata,
    Column("id", BigInteger, Identity(), primary_key=True),
    Column("identity_id", Text, nullable=False, unique=True),
    Column("first_name", Text, nullable=False),
    Column("last_name", Text, nullable=False),
    Column("other_names", Text),
    Column("gender", Text),
    Column("dob", Date),
    Column("email_address", Text),
    Column("phone_number", Text),
    Column("nationality", Text),
    Column("street", Text),
    Column("country", Text),
    Column("state", Text),
    Column("organization_name", Text),
    Column("category", Text),
    Column("identity_type", Text),
    Column("post_code", Text),
    Column("city", Text),
    Column("created_at", DateTime, nullable=False, server_default=func.now()),
    Column("meta_data", JSONB),
    schema=LEDGER_SCHEMA,
)

balances = Table(
    "balances",
    metadata,
    Column("id", BigInteger, Identity(), primary_key=True),
    Column("balance_id", Text, nullable=False, unique=True),
    Column("indicator", Text),
    Column("balance", Money, nullable=False),
    Column("credit_balance", Money, nullable=False),
    Column("debit_balance", Money, nullable=False),
    Column("currency", Text, nullable=False),
    Column("ledger_id", Text, ForeignKey(ledgers.c.ledger_id), nullable=False),
    Column("identity_id", Text, ForeignKey(identity.c.identity_id)),
    Column("created_at", DateTime, nullable=False, server_default=func.now()),
    Column("meta_data", JSONB),
    Column("version", Integer, nullable=False, server_default=text("1")),
    Column("inflight_balance", Money, nullable=False, server_default=text("0")),
    Column("inflight_credit_balance", Money, nullable=False, server_default=text("0")),
    Column("inflight_debit_balance", Money, nullable=False, server_default=text("0")),
    Column("track_fund_lineage", Boolean, nullable=False, server_default=text("false")),
    Column("allocation_strategy", Text, nullable=False, server_default=text("'FIFO'")),
    # books.create_balances: one internal balance of a name per currency
    Index(
        "uq_balances_indicator_currency",
        "indicator",
        "currency",
        unique=True,
        postgresql_where=text("indicator IS NOT NULL"),
    ),
    schema=LEDGER_SCHEMA,
)

transactions = Table(
    "transactions",
    metadata,
    Column("id", BigInteger, Identity(), primary_key=True),
    Column("transaction_id", Text, nullable=False, unique=True),
    Column("source", Text, ForeignKey(balances.c.balance_id)),
    Column("destination", Text, ForeignKey(balances.c.balance_id)),
    Column("description", Text),
    Column("reference", Text, unique=True),
    Column("amount", Money),
    Column("precise_amount", Money),
    Column("precision", BigInteger, server_default=text("1")),
    Column("currency", Text),
    Column("status", Text),
    Column("hash", Text),
    Column("created_at", DateTime, nullable=False, server_default=text("(now() AT TIME ZONE 'UTC'::text)")),
    Column("effective_date", DateTime),
    Column("scheduled_for", DateTime),
    Column("parent_transaction", Text),
    Column("meta_data", JSONB),
    Column("chain_seq", BigInteger),
    Column("chain_prev_hash", String(64)),
    Column("chain_hash", String(64)),
    # Ours: which database transaction inserted the row; NULL: recorded before this project was installed.
    Column("recorded_xid", Xid8, server_default=text("pg_current_xact_id()")),
    # books.record: what is left of a hold
    Index(
        "ix_transactions_parent_transaction",
        "parent_transaction",
        postgresql_where=text("parent_transaction IS NOT NULL"),
    ),
    # Ours. collect_activity.sql: what became effective since the base run
    Index("ix_transactions_effective_at", text(EFFECTIVE_AT)),
    # Ours. collect_activity.sql: what was recorded since the base run
    Index("ix_transactions_recorded_xid", "recorded_xid", postgresql_where=text("recorded_xid IS NOT NULL")),
    # Ours. balance_at.sql: one balance's postings between two instants, from the index alone
    Index("ix_transactions_source_effective_at", "source", text(EFFECTIVE_AT), postgresql_include=POSTING_COLUMNS),
    Index(
        "ix_transactions_destination_effective_at",
        "destination",
        text(EFFECTIVE_AT),
        postgresql_include=POSTING_COLUMNS,
    ),
    # Ours. balance_at.sql: one balance's postings that no run has collected yet
    Index("ix_transactions_source_recorded_xid", "source", "recorded_xid"),
    Index("ix_transactions_destination_recorded_xid", "destination", "recorded_xid"),
    schema=LEDGER_SCHEMA,
)

lineage_mappings = Table(
    "lineage_mappings",
    metadata,
    Column("id", BigInteger, Identity(), primary_key=True),
    Column("balance_id", Text, ForeignKey(balances.c.balance_id), nullable=False),
    Column("provider", Text, nullable=False),
    Column("shadow_balance_id", Text, ForeignKey(balances.c.balance_id), nullable=False),
    Column("aggregate_balance_id", Text, ForeignKey(balances.c.balance_id), nullable=False),
    Column("identity_id", Text, ForeignKey(identity.c.identity_id), nullable=False),
    Column("created_at", DateTime, nullable=False, server_default=func.now()),
    UniqueConstraint("balance_id", "provider"),
    schema=LEDGER_SCHEMA,
)

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
    # runs.newest_certified, history: closes by the instant they end at
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
    Column("credit_balance", Money, nullable=False),
    Column("debit_balance", Money, nullable=False),
    Column("inflight_credit_balance", Money, nullable=False),
    Column("inflight_debit_balance", Money, nullable=False),
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
    Column("credit_balance", Money, nullable=False),
    Column("debit_balance", Money, nullable=False),
    Column("inflight_credit_balance", Money, nullable=False),
    Column("inflight_debit_balance", Money, nullable=False),
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
    Column("credit_balance", Money, nullable=False),
    Column("debit_balance", Money, nullable=False),
    Column("inflight_credit_balance", Money, nullable=False),
    Column("inflight_debit_balance", Money, nullable=False),
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

verification_scope = Enum(
    "since-close", "from-genesis", "checksums", name="verification_scope", schema=EOD_SCHEMA, metadata=metadata
)
#: open → finished (every balance has its verdict) or open → abandoned (a batch failed, or the process ended)
verification_status = Enum(
    "open", "finished", "abandoned", name="verification_status", schema=EOD_SCHEMA, metadata=metadata
)

verifications = Table(
    "verifications",
    metadata,
    Column("verification_id", BigInteger, Identity(), primary_key=True),
    Column("scope", verification_scope, nullable=False),
    Column("status", verification_status, nullable=False, server_default=text("'open'")),
    Column("base_run_id", BigInteger, ForeignKey(runs.c.run_id)),
    # Transactions in this close's cut were looked at one by one before; NULL: none were.
    Column("checked_run_id", BigInteger, ForeignKey(runs.c.run_id)),
    Column("cut", PgSnapshot, nullable=False),
    Column("system_identifier", Text, nullable=False),
    # What it is restricted to; NULL: not.
    Column("ledger_id", Text),
    Column("currency", Text),
    Column("balance_ids", ARRAY(Text)),
    Column("started_at", DateTime(timezone=True), nullable=False, server_default=func.clock_timestamp()),
    Column("collected_at", DateTime(timezone=True)),
    Column("finished_at", DateTime(timezone=True)),
    Column("batch_count", BigInteger, nullable=False, server_default=text("0")),
    Column("failed_batch_count", BigInteger, nullable=False, server_default=text("0")),
    Column("balance_count", BigInteger, nullable=False, server_default=text("0")),
    Column("finding_count", BigInteger, nullable=False, server_default=text("0")),
    Column("opened_count", BigInteger, nullable=False, server_default=text("0")),
    Column("closed_count", BigInteger, nullable=False, server_default=text("0")),
    Column("gross_volume", Money, nullable=False, server_default=text("0")),
    Column("unexplained_volume", Money, nullable=False, server_default=text("0")),
    schema=EOD_SCHEMA,
)

#: Working rows of an open verification: per balance, the postings in its cut, split at its base close. Not evidence.
verification_sums = Table(
    "verification_sums",
    metadata,
    Column("verification_id", BigInteger, primary_key=True, autoincrement=False),
    Column("balance_key", BigInteger, primary_key=True, autoincrement=False),
    # in the base close's cut; zero where the scope takes them from its snapshots
    Column("based_credit_balance", Money, nullable=False),
    Column("based_debit_balance", Money, nullable=False),
    Column("based_inflight_credit_balance", Money, nullable=False),
    Column("based_inflight_debit_balance", Money, nullable=False),
    # not in it
    Column("credit_balance", Money, nullable=False),
    Column("debit_balance", Money, nullable=False),
    Column("inflight_credit_balance", Money, nullable=False),
    Column("inflight_debit_balance", Money, nullable=False),
    schema=EOD_SCHEMA,
)

opening_balances = Table(
    "opening_balances",
    metadata,
    Column("opening_balance_id", BigInteger, Identity(), primary_key=True),
    Column("balance_key", BigInteger, nullable=False),
    # what the stored row held at the declaration beyond its postings; verification adds it to them
    Column("credit_balance", Money, nullable=False),
    Column("debit_balance", Money, nullable=False),
    Column("inflight_credit_balance", Money, nullable=False),
    Column("inflight_debit_balance", Money, nullable=False),
    Column("stored_credit_balance", Money, nullable=False),
    Column("stored_debit_balance", Money, nullable=False),
    Column("stored_inflight_credit_balance", Money, nullable=False),
    Column("stored_inflight_debit_balance", Money, nullable=False),
    Column("declared_by", Text, nullable=False),
    Column("reason", Text, nullable=False),
    Column("declared_at", DateTime(timezone=True), nullable=False, server_default=func.clock_timestamp()),
    # what it covers: rows recorded later have to prove themselves again
    Column("cut", PgSnapshot, nullable=False, server_default=text("pg_current_snapshot()")),
    # the cluster of that cut; in another one it covers nothing
    Column("system_identifier", Text, nullable=False, server_default=""),
    # compare_stored.sql: the newest declaration of each balance of a range
    Index("ix_opening_balances_balance_key", "balance_key", "opening_balance_id"),
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

discrepancies = Table(
    "discrepancies",
    metadata,
    Column("discrepancy_id", BigInteger, Identity(), primary_key=True),
    Column("cause", Text, nullable=False),
    Column("action", Text, nullable=False),
    Column("found_by", verification_scope, nullable=False),
    # What it is about: a balance, a transaction, a business date, or a balance on a business date.
    Column("balance_key", BigInteger),
    Column("transaction_key", BigInteger),
    Column("business_date", Date),
    Column("stored_balance", Money),
    Column("stored_credit_balance", Money),
    Column("stored_debit_balance", Money),
    Column("stored_inflight_balance", Money),
    Column("stored_inflight_credit_balance", Money),
    Column("stored_inflight_debit_balance", Money),
    Column("proven_credit_balance", Money),
    Column("proven_debit_balance", Money),
    Column("proven_inflight_credit_balance", Money),
    Column("proven_inflight_debit_balance", Money),
    # Stored minus proven of all amounts, as one text: the same difference another night is the same discrepancy.
    Column("difference", Text, nullable=False),
    Column("gross_difference", Money, nullable=False),
    Column("evidence", JSONB, nullable=False),
    Column("first_seen_at", DateTime(timezone=True), nullable=False),
    Column("first_verification_id", BigInteger, ForeignKey(verifications.c.verification_id), nullable=False),
    Column("last_seen_at", DateTime(timezone=True), nullable=False),
    Column("last_verification_id", BigInteger, nullable=False),
    Column("closed_at", DateTime(timezone=True)),
    Column("closed_verification_id", BigInteger),
    Column("closed_correction_id", BigInteger),
    # record_findings.sql: a discrepancy that is open is not opened again
    Index(
        "uq_discrepancies_open",
        "cause",
        text("COALESCE(balance_key, 0::bigint)"),
        text("COALESCE(transaction_key, 0::bigint)"),
        text("COALESCE(business_date, '-infinity'::date)"),
        "difference",
        unique=True,
        postgresql_where=text("closed_at IS NULL"),
    ),
    # record_findings.sql: the open discrepancies of a range of balances
    Index("ix_discrepancies_balance_key", "balance_key", postgresql_where=text("closed_at IS NULL")),
    schema=EOD_SCHEMA,
)

#: The amounts of a balance row, in the order of the reference's columns.
AMOUNTS = (
    "balance",
    "credit_balance",
    "debit_balance",
    "inflight_balance",
    "inflight_credit_balance",
    "inflight_debit_balance",
)


def _amounts(prefix: str) -> list[Column[Any]]:
    return [Column(f"{prefix}_{name}", Money, nullable=False) for name in AMOUNTS]


approvals = Table(
    "approvals",
    metadata,
    Column("approval_id", BigInteger, Identity(), primary_key=True),
    Column("figures_hash", String(64), nullable=False),
    # refused: whoever decided may not, or not any more
    Column(
        "decision", Enum("approved", "rejected", "refused", name="approval_decision", schema=EOD_SCHEMA), nullable=False
    ),
    Column("decided_by", Text, nullable=False),
    Column("proposed_by", Text, nullable=False),
    Column("channel", Text, nullable=False),
    Column("remark", Text, nullable=False),
    Column("flow_run_id", Text),
    Column("decided_at", DateTime(timezone=True), nullable=False, server_default=func.clock_timestamp()),
    # proposals.find_approval: the approvals of some figures
    Index("ix_approvals_figures_hash", "figures_hash", "approval_id"),
    schema=EOD_SCHEMA,
)

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
    # Over every difference that is to be corrected: what an approval is about.
    Column("figures_hash", String(64)),
    Column("approval_reasons", ARRAY(Text)),
    # Unique: an approval is good for one reconstruction.
    Column("approval_id", BigInteger, ForeignKey(approvals.c.approval_id), unique=True),
    Column("applying_at", DateTime(timezone=True)),
    Column("started_at", DateTime(timezone=True), nullable=False, server_default=func.clock_timestamp()),
    Column("ended_at", DateTime(timezone=True)),
    # proposals.find_proposal: the newest proposal of some figures
    Index("ix_reconstructions_figures_hash", "figures_hash", "reconstruction_id"),
    # proposals.find_resumable: what an interrupted flow run left
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
    *_amounts("previous"),
    *_amounts("recalculated"),
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
    *_amounts("previous"),
    Column("corrected_version", BigInteger, nullable=False),
    *_amounts("corrected"),
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
    # When the stored row was last seen to agree; NULL: not known. Until corrected_at it said something else.
    Column("drifted_since", DateTime(timezone=True)),
    Column("corrected_at", DateTime(timezone=True), nullable=False, server_default=func.clock_timestamp()),
    UniqueConstraint("reconstruction_id", "balance_key"),
    # history.balance_at, daily_balances: the corrections of a balance
    Index("ix_corrections_balance_key", "balance_key", "corrected_at"),
    schema=EOD_SCHEMA,
)
