"""Clusters: transaction ids mean something in one cluster only, so a restored copy begins with the keys that it has.

The first run or verification in a cluster stores a cut and the keys that exist. Those are visible in every later cut of
the cluster; other rows are judged by their ids. Nothing of the ledger is altered for it, and nobody waits.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import Connection, Row, cast, func, select
from sqlalchemy.dialects.postgresql import OID, REGCLASS

from ledger_db.close import tables
from ledger_db.errors import ConfigurationError, ForeignRecords
from ledger_db.postings.rules import statement
from ledger_db.server.catalogue import has_subscription, system_identifier
from ledger_db.server.connections import require_durable_commit, without_time_limit
from ledger_db.server.holds import take_turns


def serialise_opening(connection: Connection) -> None:
    """Wait until no other transaction opens a run; the turn ends with this transaction.

    Raises:
        ConfigurationError: its statements do not see what was committed while it waited.
    """
    level = connection.scalar(select(func.current_setting("transaction_isolation")))
    if level != "read committed":
        raise ConfigurationError(
            f"this transaction is {level}: it waits for others that open runs and would not see what they did, and "
            "its cut would be older than theirs. Open runs under read committed"
        )
    require_durable_commit(connection)
    take_turns(connection, "open run")


def ensure_cluster(connection: Connection) -> int:
    """The row of ``clusters`` for this cluster; stores its first cut and the keys that exist, unless it is known.

    Reads the ledger, locks none of it.
    """
    known = find_cluster(connection)
    if known is not None:
        return known
    serialise_opening(connection)
    known = find_cluster(connection)
    if known is None:
        _register_cluster(connection)
        known = find_cluster(connection)
    assert known is not None  # noqa: S101 - just written
    return known


def _register_cluster(connection: Connection) -> None:
    without_time_limit(connection)
    connection.execute(
        statement(connection, "close.register_cluster"), {"system_identifier": system_identifier(connection)}
    )


def find_cluster(connection: Connection) -> int | None:
    """The newest row of ``clusters`` when it is this cluster; None: the ledger came here since, or has no run yet.

    A ledger that was elsewhere meanwhile and came back by a dump is told by its table, which is another one.
    """
    clusters, table = tables.clusters.c, cast(cast("blnk.transactions", REGCLASS), OID)
    newest = connection.execute(
        select(
            clusters.cluster_id,
            clusters.system_identifier,
            func.coalesce(clusters.transactions_oid == table, True).label("is_its_table"),
        ).order_by(clusters.cluster_id.desc()).limit(1)
    ).one_or_none()  # fmt: skip
    if newest is None or newest.system_identifier != system_identifier(connection) or not newest.is_its_table:
        return None
    return int(newest.cluster_id)


def require_own_records(connection: Connection) -> None:
    """Refuse a ledger whose rows come from elsewhere while closes go on: their ids say nothing about when they came.

    Raises:
        ForeignRecords: the table is filled by a subscription, or rows have ids that this cluster has not given.
    """
    if has_subscription(connection, "blnk.transactions"):
        raise ForeignRecords(
            "blnk.transactions is filled by a subscription: its rows carry the publisher's transaction ids, and no cut "
            "can tell when they came. Close on the publisher, or on a streaming standby's primary"
        )
    foreign = first_foreign_record(connection)
    if foreign is not None:
        raise ForeignRecords(
            f"transaction {foreign.transaction_id} says it was recorded by database transaction "
            f"{foreign.recorded_xid}, which this cluster has not reached: rows were copied here with that column. "
            f"Set recorded_xid of blnk.transactions to its default where it is {foreign.beyond}"
        )


def first_foreign_record(connection: Connection) -> Row[Any] | None:
    """A transaction with an id that this cluster has not given and that it did not begin with; None in a sound ledger.

    None before the first run in a cluster: it begins with the rows that are there then. Has ``transaction_id``,
    ``recorded_xid``, and ``beyond``, which says in words where such rows are.
    """
    cluster_id = find_cluster(connection)
    if cluster_id is None:
        return None
    return connection.execute(
        statement(connection, "close.first_foreign_record"), {"cluster_id": cluster_id}
    ).one_or_none()  # fmt: skip
