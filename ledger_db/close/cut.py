"""The cut: which rows exist for a run; and the base: which of them its chain has counted.

A cut is a ``pg_snapshot`` of one cluster. Statements ask for it through ``in_cut.sql`` and ``after_cut.sql``, and for
what a chain has counted through ``is_counted.sql``, ``pending_keys.sql``, ``older_keys.sql`` and ``not_counted.sql``
only; this module gives them their parameters. What an older run knew is read from its sets of keys, never from its cut.
"""

from __future__ import annotations

from typing import Any, Final

from sqlalchemy import Connection, select

from ledger_db.close import tables
from ledger_db.close.cluster import find_cluster
from ledger_db.close.runs import Run, find_run

#: Below every key: the highest key of a cut without rows, and of no base.
BELOW_EVERY_KEY: Final = -(2**63)


def cut_parameters(connection: Connection, cut: str) -> dict[str, Any]:
    """A cut of this cluster as the statements take it."""
    return {"cut": cut, "cluster_id": find_cluster(connection)}


def base_parameters(connection: Connection, base: Run | None, prefix: str = "base") -> dict[str, Any]:
    """A base close as the statements take it; without one, its chain has counted nothing."""
    if base is None:
        values: dict[str, Any] = {
            "run_id": None, "genesis_run_id": None, "business_date": None, "closes_at": "-infinity",
            "max_transaction_key": BELOW_EVERY_KEY, "pending_from_run_id": None, "seen": None, "is_foreign": False,
        }  # fmt: skip
    else:
        cluster_id = find_cluster(connection)
        is_foreign = base.cluster_id != cluster_id
        values = {
            "run_id": base.run_id, "genesis_run_id": base.genesis_run_id, "business_date": base.business_date,
            "closes_at": base.closes_at, "max_transaction_key": base.max_transaction_key,
            "pending_from_run_id": base.pending_from,
            "seen": _first_cut(connection, cluster_id) if is_foreign else base.cut, "is_foreign": is_foreign,
        }  # fmt: skip
    return {f"{prefix}_{name}": value for name, value in values.items()}


def base_of(connection: Connection, run: Run) -> Run | None:
    """A run's base close."""
    return None if run.base_run_id is None else find_run(connection, run.base_run_id)


def _first_cut(connection: Connection, cluster_id: int | None) -> str | None:
    """The cut with which the ledger came into a cluster; None: no run or verification has seen it here yet."""
    clusters = tables.clusters
    cut: str | None = connection.scalar(select(clusters.c.cut).where(clusters.c.cluster_id == cluster_id))
    return cut
