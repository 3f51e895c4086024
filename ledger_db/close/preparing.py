"""Counting a business date in advance, so that its close has little left to do.

A preparation is a run that is never certified: it counts the keys that came since the one before it. The close of the
date takes over what still fits (``prepared.py``); a preparation says nothing about a balance by itself.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import UTC, date, datetime
from typing import Final

from sqlalchemy import Connection, Engine, Text, cast, func, select

from ledger_db.books.tables import transactions
from ledger_db.close import tables
from ledger_db.close.cluster import serialise_opening
from ledger_db.close.counting import PART_MASK, Piece, count_piece, plan_preparation, undone_pieces
from ledger_db.close.driver import SILENT, Report
from ledger_db.close.opening import ONE_DAY, abandon_preparations, come_into_cluster, insert_run, require_whole_chain
from ledger_db.close.runs import Run, all_runs, newest_certified_close, select_runs, unfinished_close
from ledger_db.core.calendar import BusinessCalendar
from ledger_db.core.metadata import Xid8
from ledger_db.errors import NothingToPrepare
from ledger_db.settings import get_settings

#: How long to wait for transactions under way. A row that is committed after the cut makes its piece be counted again.
WRITERS_SECONDS: Final = 30.0
WRITERS_STEP_SECONDS: Final = 0.2


@dataclass(frozen=True)
class Reached:
    """A moment of the ledger: the highest key, None without a row, and the next transaction id."""

    max_transaction_key: int | None
    next_xid: str


@dataclass(frozen=True)
class Preparation:
    """What is to be counted in advance for a business date: runs, oldest first, each with its undone pieces."""

    business_date: date
    work: list[tuple[Run, list[Piece]]]


def wait_for_writers(
    begin: Callable[[], AbstractContextManager[Connection]], *, seconds: float = WRITERS_SECONDS
) -> tuple[Reached, bool]:
    """How far the ledger is, and whether every transaction that may have taken a key by then has ended since.

    ``begin`` begins a database transaction. Waits, but no longer than ``seconds``.
    """
    with begin() as connection:
        reached = _reached_now(connection)
    deadline = time.monotonic() + seconds
    while True:
        with begin() as connection:
            if not _writers_under_way(connection, reached):
                return reached, True
        if time.monotonic() >= deadline:
            return reached, False
        time.sleep(WRITERS_STEP_SECONDS)


def _reached_now(connection: Connection) -> Reached:
    row = connection.execute(
        select(func.max(transactions.c.id), cast(func.pg_snapshot_xmax(func.pg_current_snapshot()), Text))
    ).one()
    return Reached(*row)


def _writers_under_way(connection: Connection, reached: Reached) -> bool:
    oldest = func.pg_snapshot_xmin(func.pg_current_snapshot())
    return bool(connection.scalar(select(oldest < cast(reached.next_xid, Xid8))))


def open_preparation(
    connection: Connection, *, calendar: BusinessCalendar, now: datetime, reached: Reached, piece_size: int
) -> Preparation:
    """Prepare the date in progress up to a key: plan what came since the last preparation, return all that is undone.

    Preparations of another date, or on another close, are given up. Locks no ledger row.

    Raises:
        NothingToPrepare: the date before is not closed, or a close is open.
        ForeignRecords, ChainDiffers, TableMadeAnew: as for a close.
    """
    serialise_opening(connection)
    cluster_id = come_into_cluster(connection)
    business_date = calendar.business_date_of(now)
    base = _require_base(connection, business_date)
    require_whole_chain(connection)
    closes_at = calendar.closes_at(business_date)
    kept = _preparations(connection, base, business_date, closes_at, calendar)
    abandon_preparations(connection, but=[run.run_id for run in kept])
    after_key = max([base.max_transaction_key, *(run.max_transaction_key for run in kept)])
    up_to_key = _last_whole_part(reached)
    if up_to_key is not None and up_to_key > after_key:
        run = insert_run(
            connection, business_date=business_date, kind="preparation", calendar=calendar, closes_at=closes_at,
            caught_up=False, cluster_id=cluster_id, base=base, follows=base, up_to_key=up_to_key,
        )  # fmt: skip
        plan_preparation(connection, run.run_id, after_key=after_key, piece_size=piece_size)
        kept.append(run)
    work = [(run, undone_pieces(connection, run.run_id)) for run in kept]
    return Preparation(business_date, [(run, pieces) for run, pieces in work if pieces])


def prepare_close(
    engine: Engine,
    *,
    calendar: BusinessCalendar | None = None,
    now: datetime | None = None,
    piece_size: int | None = None,
    writers_seconds: float = WRITERS_SECONDS,
    report: Report = SILENT,
) -> Preparation:
    """Count in advance what there is of the date in progress, piece by piece; returns what was done.

    ``calendar`` and ``piece_size`` default to the settings, ``now`` to the clock.

    Raises:
        NothingToPrepare: the date before is not closed, or a close is open.
    """
    reached, _ = wait_for_writers(engine.begin, seconds=writers_seconds)
    with engine.begin() as connection:
        preparation = open_preparation(
            connection, calendar=calendar or get_settings().calendar, now=now or datetime.now(UTC), reached=reached,
            piece_size=piece_size or get_settings().piece_size,
        )  # fmt: skip
    for run, pieces in preparation.work:
        for piece in pieces:
            with engine.begin() as connection:
                count_piece(connection, run.run_id, piece.piece)
            report("counted", piece.piece)
    return preparation


def _require_base(connection: Connection, business_date: date) -> Run:
    unfinished = unfinished_close(connection)
    if unfinished is not None:
        raise NothingToPrepare(f"the close of {unfinished.business_date} is not certified yet")
    base = newest_certified_close(connection)
    if base is None:
        raise NothingToPrepare("the ledger has no close yet")
    if base.business_date != business_date - ONE_DAY:
        what = "is closed already" if base.business_date >= business_date else "has dates before it to close"
        raise NothingToPrepare(f"{business_date} {what}: the newest close is of {base.business_date}")
    return base


def _preparations(
    connection: Connection, base: Run, business_date: date, closes_at: datetime, calendar: BusinessCalendar
) -> list[Run]:
    """The preparations of a date on its base, oldest first."""
    runs = tables.runs
    query = select_runs().where(
        runs.c.kind == "preparation",
        runs.c.status == "open",
        runs.c.base_run_id == base.run_id,
        runs.c.business_date == business_date,
        runs.c.closes_at == closes_at,
        runs.c.time_zone == calendar.zone.key,
        runs.c.cut_off == calendar.cut_off,
    )
    return all_runs(connection, query.order_by(runs.c.run_id))


def _last_whole_part(reached: Reached) -> int | None:
    """The last key of the last 1,024 that are all taken: a part that goes on would have to be counted again."""
    key = reached.max_transaction_key
    return None if key is None else ((key + 1) & ~PART_MASK) - 1
