"""Runs with the keys that each counted, and with what it wrote and proved."""

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
    Integer,
    LargeBinary,
    PrimaryKeyConstraint,
    String,
    Table,
    Text,
    Time,
    func,
    text,
)
from sqlalchemy.dialects.postgresql import ARRAY, INT8MULTIRANGE, OID

from ledger_db.core.amounts import PART_COLUMNS, prefixed
from ledger_db.core.metadata import EOD_SCHEMA, Money, PgSnapshot, Xid8, metadata, money_columns
from ledger_db.evidence.tables import approvals

# This project's own ---------------------------------------------------------------------------------------------------

#: preparation: counts rows of a date in progress, for its close to take over. It is never certified.
run_kind = Enum("close", "interim", "preparation", name="run_kind", schema=EOD_SCHEMA, metadata=metadata)

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
    # The row of clusters whose transaction ids the cut is made of.
    Column("cluster_id", BigInteger, ForeignKey("ledger_eod.clusters.cluster_id"), nullable=False),
    Column("base_run_id", BigInteger, ForeignKey("ledger_eod.runs.run_id")),
    # The run without base that this chain of runs starts from; activity adds up along one chain only.
    Column("genesis_run_id", BigInteger, nullable=False),
    # The highest transaction key that the cut sees, never lower than the base's.
    Column("max_transaction_key", BigInteger, nullable=False),
    # Pending are the keys that the closes from this one on stored as pending, without those that they counted since.
    # NULL: this run stored all of them.
    Column("pending_from_run_id", BigInteger),
    Column("caught_up", Boolean, nullable=False, server_default=text("false")),
    Column("opened_at", DateTime(timezone=True), nullable=False, server_default=func.now()),
    Column("planned_at", DateTime(timezone=True)),  # its pieces are planned
    Column("collected_at", DateTime(timezone=True)),  # all of them are counted
    Column("certified_at", DateTime(timezone=True)),
    Column("snapshot_count", BigInteger),
    Column("checksum", String(64)),
    Column("refusal", Text),  # why it was not certified the last time it was tried
    # runs.newest_certified_close: closes by the instant they end at
    Index("ix_runs_closes_at", "kind", "status", "closes_at"),
    # business_date.sql: the close of a chain whose interval holds an instant
    Index("ix_runs_genesis_run_id", "genesis_run_id", "closes_at"),
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

#: What a set of keys says of its rows.
#: older: at or below the base's highest key, not pending there, and looked at by this run. counted: counted by this
#: run, for a business date; rows of statuses that never count are in it too. pending: known to this run and counted by
#: no close up to it; where runs.pending_from_run_id is not NULL, only what was not pending at its base.
#: settling: counted by this run, and they release a hold. released: this run released their hold. waiting: counted by
#: a close up to this run, and their hold is not released.
KEY_SETS = ("older", "counted", "pending", "settling", "released", "waiting")

key_set = Enum(*KEY_SETS, name="key_set", schema=EOD_SCHEMA, metadata=metadata)

run_keys = Table(
    "run_keys",
    metadata,
    # No foreign keys, as for activity.
    Column("run_id", BigInteger, primary_key=True, autoincrement=False),
    Column("key_set", key_set, primary_key=True),
    Column("piece", Integer, primary_key=True, autoincrement=False),
    Column("effective_date", Date, primary_key=True),
    # Keys are stored by blocks of 8,192: block = key >> 13, so that who counted a key is one look-up.
    Column("block", BigInteger, primary_key=True, autoincrement=False),
    Column("keys", INT8MULTIRANGE, nullable=False),
    # older_keys.sql: the runs that have keys of a block in a set
    Index("ix_run_keys_block", "block", "key_set", "run_id"),
    schema=EOD_SCHEMA,
)

piece_work = Enum("older", "new", "holds", "prepared", name="piece_work", schema=EOD_SCHEMA, metadata=metadata)

run_pieces = Table(
    "run_pieces",
    metadata,
    Column("run_id", BigInteger, primary_key=True, autoincrement=False),
    Column("piece", Integer, primary_key=True, autoincrement=False),
    # older: the run's older keys in the range. new: all keys in it. holds: its children whose holds may be released.
    # prepared: all keys in it, by what preparations counted of them.
    Column("work", piece_work, nullable=False),
    Column("first_key", BigInteger, nullable=False),
    Column("last_key", BigInteger, nullable=False),
    Column("done_at", DateTime(timezone=True)),
    Column("counted_count", BigInteger, nullable=False, server_default=text("0")),
    Column("settled_count", BigInteger, nullable=False, server_default=text("0")),
    Column("pending_count", BigInteger, nullable=False, server_default=text("0")),
    Column("gone_count", BigInteger, nullable=False, server_default=text("0")),
    # Of a preparation: of the rows as it counted them.
    Column("fingerprint", String(64)),
    schema=EOD_SCHEMA,
)

#: The digests of a preparation's rows by parts of 1,024 keys, so that pieces can be put together.
prepared_parts = Table(
    "prepared_parts",
    metadata,
    # No foreign keys, as for activity.
    Column("run_id", BigInteger, primary_key=True, autoincrement=False),
    Column("piece", Integer, primary_key=True, autoincrement=False),
    Column("effective_date", Date, primary_key=True),
    Column("part", BigInteger, primary_key=True, autoincrement=False),
    Column("transaction_count", BigInteger, nullable=False),
    Column("posted_amount", Money, nullable=False),
    Column("held_amount", Money, nullable=False),
    Column("digest", LargeBinary, nullable=False),
    schema=EOD_SCHEMA,
)

#: The balances that a preparation found and no run had captured. The close captures them itself, and takes over nothing
#: that was counted with others.
prepared_balances = Table(
    "prepared_balances",
    metadata,
    # No foreign keys, as for activity.
    Column("run_id", BigInteger, primary_key=True, autoincrement=False),
    Column("balance_key", BigInteger, primary_key=True, autoincrement=False),
    Column("balance_id", Text, nullable=False),
    Column("currency", Text, nullable=False),
    schema=EOD_SCHEMA,
)

#: One row for each time that this ledger came into a cluster: back in an earlier one, it is another row.
clusters = Table(
    "clusters",
    metadata,
    Column("cluster_id", BigInteger, Identity(), primary_key=True),
    Column("system_identifier", Text, nullable=False),
    Column("cut", PgSnapshot, nullable=False),
    Column("max_transaction_key", BigInteger, nullable=False),
    # The highest recorded_xid of the rows that existed: higher than this cluster's own ids, if they came from another.
    Column("max_recorded_xid", Xid8),
    # The table that held them: a dump that is restored makes another, also in a cluster that the ledger was in before.
    # NULL: found before this was noted, and taken to be the same.
    Column("transactions_oid", OID),
    Column("first_seen_at", DateTime(timezone=True), nullable=False, server_default=func.now()),
    schema=EOD_SCHEMA,
)

#: Where the closes of this ledger were to begin when it had none: the newest row counts.
first_closes = Table(
    "first_closes",
    metadata,
    Column("first_close_id", BigInteger, Identity(), primary_key=True),
    Column("first_date", Date, nullable=False),
    Column("choice", Text, nullable=False),  # since (a date that was named), from-first-posting or only-last
    Column("first_posting_date", Date),  # at that time
    Column("chosen_at", DateTime(timezone=True), nullable=False, server_default=func.clock_timestamp()),
    schema=EOD_SCHEMA,
)

cluster_keys = Table(
    "cluster_keys",
    metadata,
    Column("cluster_id", BigInteger, ForeignKey(clusters.c.cluster_id), primary_key=True, autoincrement=False),
    Column("block", BigInteger, primary_key=True, autoincrement=False),
    Column("keys", INT8MULTIRANGE, nullable=False),
    schema=EOD_SCHEMA,
)

captured_balances = Table(
    "captured_balances",
    metadata,
    Column("balance_key", BigInteger, primary_key=True, autoincrement=False),
    Column("balance_id", Text, nullable=False, unique=True),
    Column("currency", Text, nullable=False),
    # The first run that answers for it, and the run that found its row gone.
    Column("first_run_id", BigInteger, nullable=False),
    Column("gone_run_id", BigInteger),
    schema=EOD_SCHEMA,
)

activity = Table(
    "activity",
    metadata,
    # No foreign keys, as for balance_snapshots.
    Column("run_id", BigInteger, primary_key=True, autoincrement=False),
    Column("balance_key", BigInteger, primary_key=True, autoincrement=False),
    Column("effective_date", Date, primary_key=True),
    Column("piece", Integer, primary_key=True, autoincrement=False),
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
    # No foreign keys: their checks take five times as long as the row. Rows come from captured_balances by
    # INSERT … SELECT, and certification counts both sides.
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
    Column("piece", Integer, primary_key=True, autoincrement=False),
    Column("cause", Text, nullable=False),
    Column("difference", Money, nullable=False),
    Column("inflight_difference", Money, nullable=False),
    schema=EOD_SCHEMA,
)

row_digests = Table(
    "row_digests",
    metadata,
    # No foreign keys, as for activity.
    Column("run_id", BigInteger, primary_key=True, autoincrement=False),
    Column("piece", Integer, primary_key=True, autoincrement=False),
    Column("effective_date", Date, primary_key=True),
    Column("transaction_count", BigInteger, nullable=False),
    Column("posted_amount", Money, nullable=False),
    Column("held_amount", Money, nullable=False),
    Column("digest", String(64), nullable=False),
    schema=EOD_SCHEMA,
)

#: The first and last row of each 1,024 keys that a run looked at: they show whether the table was made anew since.
sampled_rows = Table(
    "sampled_rows",
    metadata,
    # No foreign keys, as for activity.
    Column("run_id", BigInteger, primary_key=True, autoincrement=False),
    Column("transaction_key", BigInteger, primary_key=True, autoincrement=False),
    Column("key_set", key_set, nullable=False),  # counted or pending
    Column("transaction_id", Text, nullable=False),
    schema=EOD_SCHEMA,
)

#: What a run stored besides its snapshots, as it was certified.
figure_digests = Table(
    "figure_digests",
    metadata,
    Column("run_id", BigInteger, ForeignKey(runs.c.run_id), primary_key=True, autoincrement=False),
    Column("subject", Text, primary_key=True),
    Column("digest", String(64), nullable=False),
    schema=EOD_SCHEMA,
)

#: Of closes before rows were counted by their keys; ``row_digests`` has those of later ones.
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

#: The rows of such a close, digested as those of later ones are, where its checksums say that they are the same.
later_digests = Table(
    "later_digests",
    metadata,
    Column("run_id", BigInteger, ForeignKey(runs.c.run_id), primary_key=True, autoincrement=False),
    Column("piece", Integer, primary_key=True, autoincrement=False),
    Column("effective_date", Date, primary_key=True),
    Column("transaction_count", BigInteger, nullable=False),
    Column("posted_amount", Money, nullable=False),
    Column("held_amount", Money, nullable=False),
    Column("digest", String(64), nullable=False),
    Column("digested_at", DateTime(timezone=True), nullable=False, server_default=func.clock_timestamp()),
    schema=EOD_SCHEMA,
)

#: For closes that got their keys by migration 0007: the newest one's snapshots minus the sum of the rows that its chain
#: is then said to have counted. While a chain has differences it is not continued.
chain_differences = Table(
    "chain_differences",
    metadata,
    # No foreign keys, as for activity.
    Column("genesis_run_id", BigInteger, primary_key=True, autoincrement=False),
    Column("balance_key", BigInteger, primary_key=True, autoincrement=False),
    *money_columns(PART_COLUMNS),
    schema=EOD_SCHEMA,
)

#: A close that has no base although there are certified closes: it begins a new chain, from the first posting.
new_chains = Table(
    "new_chains",
    metadata,
    Column("run_id", BigInteger, ForeignKey(runs.c.run_id), primary_key=True, autoincrement=False),
    # The last close of the chain before.
    Column("previous_run_id", BigInteger, ForeignKey(runs.c.run_id), nullable=False),
    Column("reason", Text, nullable=False),
    Column("proposed_by", Text, nullable=False),
    Column("proposed_at", DateTime(timezone=True), nullable=False, server_default=func.clock_timestamp()),
    # Compared with the previous chain. Whether its keys stand for the rows that it looked at: if not, they say nothing
    # of today's rows.
    Column("has_same_rows", Boolean),
    # How many of its counted keys have no row any more; of other rows: of its sampled transactions, how many.
    # changed_dates: of its closes whose rows say something else now; of other rows: add up to something else.
    Column("gone_count", BigInteger),
    Column("changed_dates", ARRAY(Date)),
    Column("compared_at", DateTime(timezone=True)),
    # Over all of this but the approval; an approval is for one hash, and is used once.
    Column("figures_hash", String(64)),
    Column("approval_id", BigInteger, ForeignKey(approvals.c.approval_id), unique=True),
    schema=EOD_SCHEMA,
)

#: Where the snapshot of the previous chain's last close is not what the new chain says of the same instant, or not made
#: of the same rows.
new_chain_differences = Table(
    "new_chain_differences",
    metadata,
    # No foreign keys, as for activity.
    Column("run_id", BigInteger, primary_key=True, autoincrement=False),
    Column("balance_key", BigInteger, primary_key=True, autoincrement=False),
    *money_columns(prefixed("previous_", PART_COLUMNS)),
    *money_columns(prefixed("present_", PART_COLUMNS)),
    schema=EOD_SCHEMA,
)

#: The transactions that only one of the two counts for that instant. What they leave of a difference is of rows that
#: were edited or are gone. None where the table was made anew.
new_chain_transactions = Table(
    "new_chain_transactions",
    metadata,
    # No foreign keys, as for activity.
    Column("run_id", BigInteger, primary_key=True, autoincrement=False),
    Column("balance_key", BigInteger, primary_key=True, autoincrement=False),
    Column("transaction_key", BigInteger, primary_key=True, autoincrement=False),
    # Counted by the new chain only; else by the previous one only, and the amounts are negative.
    Column("is_added", Boolean, nullable=False),
    *money_columns(PART_COLUMNS),
    schema=EOD_SCHEMA,
)
