"""Snapshots: plan the key ranges a run still lacks, and write them, one bounded transaction each."""

from __future__ import annotations

from datetime import date
from typing import Final

from sqlalchemy import Connection, text

from ledger_db.close.runs import Run, find_run, lock_open_run
from ledger_db.core.key_ranges import KeyRange
from ledger_db.core.metadata import EOD_SCHEMA
from ledger_db.errors import RunNotOpen
from ledger_db.postings.rules import statement
from ledger_db.server.catalogue import has_table
from ledger_db.server.connections import in_memory, set_local
from ledger_db.server.holds import take_turns

#: What another process changes behind a plan is in the next one. After these rounds a run is not certified, and the
#: next call completes it.
PLAN_ROUNDS: Final = 3


def plan_key_ranges(connection: Connection, run_id: int, *, batch_size: int) -> list[KeyRange]:
    """The ranges of at most ``batch_size`` balances that lack their snapshot, in key order; empty when none does."""
    run = find_run(connection, run_id)
    rows = connection.execute(
        statement(connection, "close.plan_key_ranges"),
        {
            "business_date": run.business_date,
            "kind": run.kind,
            "run_id": run_id,
            "batch_size": batch_size,
        },
    )
    return [KeyRange(*row) for row in rows]


def ensure_partition(connection: Connection, business_date: date) -> None:
    """Make the month's partition of ``balance_snapshots`` unless it is there.

    It is attached, not created in place: that lets readers of the other months go on.
    """
    first = business_date.replace(day=1)
    following = date(first.year + first.month // 12, first.month % 12 + 1, 1)
    name = f"balance_snapshots_{first:%Y_%m}"
    if has_table(connection, EOD_SCHEMA, name):
        return
    take_turns(connection, "partition")
    if has_table(connection, EOD_SCHEMA, name):
        return
    connection.execute(text(f"CREATE TABLE ledger_eod.{name} (LIKE ledger_eod.balance_snapshots INCLUDING ALL)"))
    connection.execute(
        text(
            f"ALTER TABLE ledger_eod.balance_snapshots ATTACH PARTITION ledger_eod.{name} "
            f"FOR VALUES FROM ('{first}') TO ('{following}')"
        )
    )
    connection.execute(
        text(
            f"CREATE TRIGGER refuse_truncate BEFORE TRUNCATE ON ledger_eod.{name} "
            "FOR EACH STATEMENT EXECUTE FUNCTION ledger_eod.refuse_change()"
        )
    )


def write_snapshot_batch(connection: Connection, run_id: int, balances: KeyRange) -> int:
    """Write one run's snapshots for a range of balances: base snapshot plus activity. Returns how many are new.

    Reads the run's activity, so the answer does not depend on when or where it is called; a second call
    writes nothing. Locks no ledger row. The commit does not wait for the disk: certification's commit does, and what
    a crash loses before that is missing rows, which the next call writes.

    Raises:
        RunNotOpen: the run is certified or abandoned, or its rows are not counted yet.
    """
    run = lock_open_run(connection, run_id, shared=True)
    if run.collected_at is None:
        raise RunNotOpen(f"{run.name} has no activity yet: count its rows before its snapshots")
    set_local(connection, "synchronous_commit", "off")
    in_memory(connection)
    # All three inputs are range scans of a like size. Fresh activity is not in the statistics yet, and a nested loop
    # chosen for "one row" is the bad plan here.
    set_local(connection, "enable_nestloop", "off")
    return connection.execute(
        statement(connection, "close.write_snapshot_batch"),
        {
            "run_id": run_id,
            "business_date": run.business_date,
            "kind": run.kind,
            "base_date": base_date_of(connection, run),
            "first_key": balances.first_key,
            "last_key": balances.last_key,
        },
    ).rowcount


def base_date_of(connection: Connection, run: Run) -> date | None:
    """The business date of a run's base, None without one."""
    return None if run.base_run_id is None else find_run(connection, run.base_run_id).business_date
