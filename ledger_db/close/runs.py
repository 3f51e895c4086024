"""Runs: one execution for one business date and kind; what belongs to it is a pure function of its cut and each row.

Closes form one chain: each has the newest certified close as its base. Interim runs hang off that chain and nothing is
based on them.
"""

from __future__ import annotations

from contextlib import AbstractContextManager
from dataclasses import dataclass, fields
from datetime import date, datetime, time
from functools import lru_cache
from typing import Any, Final, Literal

from sqlalchemy import Connection, Engine, Select, bindparam, select

from ledger_db.close import tables
from ledger_db.errors import Hint, RunNotOpen, UnknownRun
from ledger_db.server.holds import hold

Kind = Literal["close", "interim", "preparation"]


@dataclass(frozen=True)
class Run:
    """One execution for one business date and kind: its interval ``[opens_at, closes_at)`` in UTC and its cut."""

    run_id: int
    business_date: date
    kind: Kind
    status: Literal["open", "certified", "abandoned"]
    time_zone: str
    cut_off: time
    opens_at: datetime
    closes_at: datetime
    cut: str
    system_identifier: str
    cluster_id: int
    base_run_id: int | None
    genesis_run_id: int
    max_transaction_key: int
    pending_from_run_id: int | None
    caught_up: bool
    opened_at: datetime
    planned_at: datetime | None
    collected_at: datetime | None
    certified_at: datetime | None
    snapshot_count: int | None
    checksum: str | None
    refusal: str | None

    @property
    def certified(self) -> bool:
        """Whether the figures are proved and frozen."""
        return self.status == "certified"

    @property
    def stores_all_pending(self) -> bool:
        """Whether its set of pending keys is whole, and not only what was not pending at its base."""
        return self.pending_from_run_id is None

    @property
    def pending_from(self) -> int:
        """The run whose set of pending keys is whole: with those of later runs it has what is pending at this one."""
        return self.run_id if self.pending_from_run_id is None else self.pending_from_run_id

    @property
    def name(self) -> str:
        """Name for logs and messages."""
        return f"{self.kind} {self.business_date} (run {self.run_id})"


_COLUMNS: Final = [tables.runs.c[field.name] for field in fields(Run)]


def select_runs() -> Select[Any]:
    """Runs, whole: a row is the keywords of :class:`Run`."""
    return select(*_COLUMNS)


def first_run(connection: Connection, query: Select[Any]) -> Run | None:
    """The first run of a query of :func:`select_runs`, or None."""
    row = connection.execute(query.limit(1)).one_or_none()
    return None if row is None else Run(**row._mapping)


def all_runs(connection: Connection, query: Select[Any]) -> list[Run]:
    """The runs of a query of :func:`select_runs`."""
    return [Run(**row._mapping) for row in connection.execute(query)]


def find_run(connection: Connection, run_id: int) -> Run:
    """One run by its id.

    Raises:
        UnknownRun: there is none.
    """
    return _find_run(connection, run_id, "none")


def _find_run(connection: Connection, run_id: int, lock: Literal["none", "shared", "exclusive"]) -> Run:
    row = connection.execute(_run_by_id(lock), {"run_id": run_id}).one_or_none()
    if row is None:
        raise UnknownRun(f"there is no run {run_id}", hint=Hint.list_runs)
    return Run(**row._mapping)


@lru_cache
def _run_by_id(lock: Literal["none", "shared", "exclusive"]) -> Select[Any]:
    """Built once, as every query that a look-up of one balance needs: building it takes as long as running it."""
    query = select_runs().where(tables.runs.c.run_id == bindparam("run_id"))
    return query if lock == "none" else query.with_for_update(read=lock == "shared")


def list_runs(connection: Connection, *, limit: int = 50, kind: Kind | None = None) -> list[Run]:
    """The newest runs, newest first. Without a kind all but preparations, which say nothing about a balance."""
    runs = tables.runs
    of_kind = runs.c.kind != "preparation" if kind is None else runs.c.kind == kind
    return all_runs(connection, select_runs().where(of_kind).order_by(runs.c.run_id.desc()).limit(limit))


def stale_interim_runs(connection: Connection, *, before: date) -> list[Run]:
    """The open interim runs of dates before one, oldest first: unlike a close, no later call resumes them by itself."""
    runs = tables.runs
    query = select_runs().where(runs.c.kind == "interim", runs.c.status == "open", runs.c.business_date < before)
    return all_runs(connection, query.order_by(runs.c.run_id))


def unfinished_close(connection: Connection) -> Run | None:
    """The close that is open; there is one at most."""
    runs = tables.runs
    return first_run(connection, select_runs().where(runs.c.kind == "close", runs.c.status == "open"))


def newest_certified_close(
    connection: Connection, *, not_after: datetime | None = None, up_to_run_id: int | None = None
) -> Run | None:
    """The newest certified close of the current chain, or the newest that ends at or before an instant.

    The current chain is that of the newest close.
    ``up_to_run_id``: as if later runs did not exist.
    """
    query = _newest_certified(not_after is not None, up_to_run_id is not None)
    row = connection.execute(query, {"not_after": not_after, "up_to_run_id": up_to_run_id}).one_or_none()
    return None if row is None else Run(**row._mapping)


@lru_cache
def _newest_certified(is_until: bool, is_up_to: bool) -> Select[Any]:
    """Built once, as :func:`_run_by_id`."""
    runs, newest = tables.runs, tables.runs.alias("newest")
    chain = select(newest.c.genesis_run_id).where(newest.c.kind == "close", newest.c.status == "certified")
    query = select_runs().where(runs.c.kind == "close", runs.c.status == "certified")
    if is_up_to:
        chain = chain.where(newest.c.run_id <= bindparam("up_to_run_id"))
        query = query.where(runs.c.run_id <= bindparam("up_to_run_id"))
    if is_until:
        query = query.where(runs.c.closes_at <= bindparam("not_after"))
    current = chain.order_by(newest.c.run_id.desc()).limit(1).scalar_subquery()
    return query.where(runs.c.genesis_run_id == current).order_by(runs.c.closes_at.desc()).limit(1)


def certified_run_ids(connection: Connection) -> list[int]:
    """All certified runs, closes and interim ones, oldest first."""
    runs = tables.runs
    return list(connection.scalars(select(runs.c.run_id).where(runs.c.status == "certified").order_by(runs.c.run_id)))


def certified_close_of(connection: Connection, business_date: date) -> Run:
    """The certified close of one business date.

    Raises:
        UnknownRun: the date has none.
    """
    runs = tables.runs
    query = select_runs().where(
        runs.c.kind == "close", runs.c.status == "certified", runs.c.business_date == business_date
    )
    run = first_run(connection, query)
    if run is None:
        raise UnknownRun(f"{business_date} has no certified close", hint=Hint.list_runs)
    return run


def lock_open_run(connection: Connection, run_id: int, *, shared: bool = False) -> Run:
    """The run, kept open until the transaction ends: against certification when shared, against batches too if not.

    Raises:
        RunNotOpen: it is certified or abandoned.
        UnknownRun: there is none.
    """
    run = _find_run(connection, run_id, "shared" if shared else "exclusive")
    if run.status != "open":
        raise RunNotOpen(f"{run.name} is {run.status}: it takes no more rows")
    return run


def require_no_preparation(run: Run) -> None:
    """Refuse to complete a run that is never complete.

    Raises:
        RunNotOpen: it is a preparation.
    """
    if run.kind == "preparation":
        raise RunNotOpen(f"{run.name} counts for a close, and is none itself")


def hold_run(engine: Engine, run_id: int) -> AbstractContextManager[bool]:
    """Hold a run while the block lasts; False at once when another session is at work on it."""
    return hold(engine, "run", run_id)
