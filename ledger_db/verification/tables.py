"""Verifications, their working rows, their findings, and declared opening balances."""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    Column,
    Date,
    DateTime,
    Enum,
    ForeignKey,
    Identity,
    Index,
    Table,
    Text,
    func,
    text,
)
from sqlalchemy.dialects.postgresql import ARRAY, JSONB

from ledger_db.close.tables import runs
from ledger_db.core.amounts import AMOUNT_COLUMNS, PART_COLUMNS, prefixed
from ledger_db.core.metadata import EOD_SCHEMA, Money, PgSnapshot, metadata, money_columns

verification_scope = Enum(
    "since-close", "from-genesis", "checksums", name="verification_scope", schema=EOD_SCHEMA, metadata=metadata
)

#: open → finished (every batch was checked) or open → abandoned (a batch failed, or the process died)
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
    # The transactions that this close's chain counted were checked one by one before; NULL: none were.
    Column("checked_run_id", BigInteger, ForeignKey(runs.c.run_id)),
    Column("cut", PgSnapshot, nullable=False),
    Column("system_identifier", Text, nullable=False),
    # What it is restricted to; NULL: not restricted.
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

#: Working rows of an open verification: per balance, the postings in its cut, by whether its base counted them. Not
#: evidence.
verification_sums = Table(
    "verification_sums",
    metadata,
    Column("verification_id", BigInteger, primary_key=True, autoincrement=False),
    Column("balance_key", BigInteger, primary_key=True, autoincrement=False),
    # what the base close's snapshots hold; zero where the scope takes it from them
    *money_columns(prefixed("based_", PART_COLUMNS)),
    # what they do not hold
    *money_columns(PART_COLUMNS),
    schema=EOD_SCHEMA,
)

opening_balances = Table(
    "opening_balances",
    metadata,
    Column("opening_balance_id", BigInteger, Identity(), primary_key=True),
    Column("balance_key", BigInteger, nullable=False),
    # what the stored row held at the declaration beyond its postings; verification adds it to them
    *money_columns(PART_COLUMNS),
    *money_columns(prefixed("stored_", PART_COLUMNS)),
    Column("declared_by", Text, nullable=False),
    Column("reason", Text, nullable=False),
    Column("declared_at", DateTime(timezone=True), nullable=False, server_default=func.clock_timestamp()),
    # what it covers: rows recorded later have to prove themselves again
    Column("cut", PgSnapshot, nullable=False, server_default=text("pg_current_snapshot()")),
    # the cluster of that cut; in another one it covers what came there with the ledger
    Column("system_identifier", Text, nullable=False, server_default=""),
    # compare_stored.sql: the newest declaration of each balance of a range
    Index("ix_opening_balances_balance_key", "balance_key", "opening_balance_id"),
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
    *money_columns(prefixed("stored_", AMOUNT_COLUMNS), nullable=True),
    *money_columns(prefixed("proven_", PART_COLUMNS), nullable=True),
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
    # discrepancies.close_corrected, last_agreed.sql: the discrepancies of a balance
    Index("ix_discrepancies_balance_key", "balance_key", postgresql_where=text("closed_at IS NULL")),
    schema=EOD_SCHEMA,
)
