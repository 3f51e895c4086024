"""Questions to PostgreSQL's catalogue: which cluster this is, which tables, columns, indexes and triggers exist.

We do not declare the catalogue's tables, so these are the only short statements that are written as text.
"""

from __future__ import annotations

from sqlalchemy import Connection, text


def system_identifier(connection: Connection) -> str:
    """The cluster's own number. A physical copy keeps it and continues its transaction ids; a dump restored elsewhere
    has a new one.

    Queried once per connection, which stays with its cluster.
    """
    known = connection.info.get("ledger_eod_system_identifier")
    if known is None:
        known = str(connection.scalar(text("SELECT system_identifier FROM pg_control_system()")))
        connection.info["ledger_eod_system_identifier"] = known
    return str(known)


def has_database(connection: Connection, name: str) -> bool:
    """Whether the cluster has a database of this name."""
    return _is_there(connection, "SELECT count(*) > 0 FROM pg_database WHERE datname = :name", name=name)


def has_table(connection: Connection, schema: str, name: str) -> bool:
    """Whether this statement sees such a table; ``to_regclass`` could answer from the session's cache."""
    return _is_there(
        connection,
        "SELECT count(*) > 0 FROM pg_class WHERE relname = :name AND relnamespace = to_regnamespace(:schema)",
        schema=schema,
        name=name,
    )


def has_column(connection: Connection, table: str, column: str) -> bool:
    """Whether a table (``schema.name``) has a column."""
    return _is_there(
        connection,
        "SELECT count(*) > 0 FROM pg_attribute WHERE attrelid = to_regclass(:table) AND attname = :column "
        "AND NOT attisdropped",
        table=table,
        column=column,
    )


def has_unique_column(connection: Connection, table: str, column: str) -> bool:
    """Whether a valid unique index on that column alone, and on every row, excludes duplicates."""
    return _is_there(
        connection,
        "SELECT count(*) > 0 FROM pg_index JOIN pg_attribute ON attrelid = indrelid AND attnum = indkey[0] "
        "WHERE indrelid = to_regclass(:table) AND indisunique AND indisvalid AND indnatts = 1 AND indpred IS NULL "
        "AND attname = :column",
        table=table,
        column=column,
    )


def has_enabled_trigger(connection: Connection, table: str, name: str) -> bool:
    """Whether a table has a trigger of this name that is not disabled."""
    return _is_there(
        connection,
        "SELECT count(*) > 0 FROM pg_trigger WHERE tgrelid = to_regclass(:table) AND tgname = :name "
        "AND tgenabled <> 'D'",
        table=table,
        name=name,
    )


def has_subscription(connection: Connection, table: str) -> bool:
    """Whether a table is filled by logical replication."""
    return _is_there(
        connection, "SELECT count(*) > 0 FROM pg_subscription_rel WHERE srrelid = to_regclass(:table)", table=table
    )


def _is_there(connection: Connection, question: str, **parameters: str) -> bool:
    return bool(connection.scalar(text(question), parameters))
