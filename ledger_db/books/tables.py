"""The reference ledger's tables, in schema ``blnk``. Where Blnk created them, they belong to the application."""

from __future__ import annotations

from typing import Final

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Date,
    DateTime,
    ForeignKey,
    Identity,
    Index,
    Integer,
    String,
    Table,
    Text,
    UniqueConstraint,
    func,
    text,
)
from sqlalchemy.dialects.postgresql import JSONB

from ledger_db.core.amounts import AMOUNT_COLUMNS
from ledger_db.core.metadata import LEDGER_SCHEMA, Money, Xid8, metadata, money_columns
from ledger_db.postings.rules import COUNTS, EFFECTIVE_AT

GENERAL_LEDGER_ID = "general_ledger_id"

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
    *money_columns(AMOUNT_COLUMNS[:3]),
    Column("currency", Text, nullable=False),
    Column("ledger_id", Text, ForeignKey(ledgers.c.ledger_id), nullable=False),
    Column("identity_id", Text, ForeignKey(identity.c.identity_id)),
    Column("created_at", DateTime, nullable=False, server_default=func.now()),
    Column("meta_data", JSONB),
    Column("version", Integer, nullable=False, server_default=text("1")),
    *money_columns(AMOUNT_COLUMNS[3:], server_default="0"),
    Column("track_fund_lineage", Boolean, nullable=False, server_default=text("false")),
    Column("allocation_strategy", Text, nullable=False, server_default=text("'FIFO'")),
    # accounts.create_balance: one internal balance per name and currency
    Index(
        "uq_balances_indicator_currency",
        "indicator",
        "currency",
        unique=True,
        postgresql_where=text("indicator IS NOT NULL"),
    ),
    schema=LEDGER_SCHEMA,
)

_IS_RECORDED: Final = "recorded_xid IS NOT NULL"

#: What this project adds to the ledger's transactions. In a ledger that queues, half of the rows never count: the
#: indexes by which a balance's rows are found leave them out.
TRANSACTION_INDEXES: Final = (
    # older_keys.sql: what was recorded since the base run, to find stragglers among it
    Index("ix_transactions_recorded_xid", "recorded_xid", postgresql_where=text(_IS_RECORDED)),
    # balance_at.sql: one balance's postings between two instants
    Index("ix_transactions_source_effective_at", "source", text(EFFECTIVE_AT), postgresql_where=text(COUNTS)),
    Index("ix_transactions_destination_effective_at", "destination", text(EFFECTIVE_AT), postgresql_where=text(COUNTS)),
    # balance_at.sql: one balance's postings that were recorded since a run
    Index(
        "ix_transactions_source_recorded_xid", "source", "recorded_xid",
        postgresql_where=text(f"{COUNTS} AND {_IS_RECORDED}"),
    ),
    Index(
        "ix_transactions_destination_recorded_xid", "destination", "recorded_xid",
        postgresql_where=text(f"{COUNTS} AND {_IS_RECORDED}"),
    ),
)  # fmt: skip

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
    # Ours: the database transaction that inserted the row. NULL: recorded before this project was installed.
    Column("recorded_xid", Xid8, server_default=text("pg_current_xact_id()")),
    # remaining_hold.sql: what is left of a hold
    Index(
        "ix_transactions_parent_transaction",
        "parent_transaction",
        postgresql_where=text("parent_transaction IS NOT NULL"),
    ),
    *TRANSACTION_INDEXES,
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
