"""Runs: opening one takes its cut; from then on what belongs to it is a pure function of each ledger row.

Closes form one chain: each has the newest certified close as its base, and none is opened while an earlier one is
open or behind a certified one. Interim runs hang off that chain and nothing is based on them.
"""

from __future__ import annotations

from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import date, datetime, time
from typing import Literal

from sqlalchemy import Connection, Engine, RowMapping, text

from ledger_db.errors import RunNotOpen, UnknownRun
from ledger_db.server.holds import hold

Kind = Literal["close", "interim"]

COLUMNS = """
    run_id, business_date, kind, status, time_zone, cut_off, opens_at, closes_at, cut, system_identifier, base_run_id,
    genesis_run_id, max_balance_key, caught_up, opened_at, collected_at, certified_at, snapshot_count, checksum, refusal
"""


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
    base_run_id: int | None
    genesis_run_id: int
    max_balance_key: int
    caught_up: bool
    opened_at: datetime
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
    def name(self) -> str:
        """How logs and messages call it."""
        return f"{self.kind} {self.business_date} (run {self.run_id})"


def _run(row: RowMapping) -> Run:
    return Run(**row)


def find_run(connection: Connection, run_id: int) -> Run:
    """One run by its id.

    Raises:
        UnknownRun: there is none.
    """
    return _find_run(connection, run_id, "")


def _find_run(connection: Connection, run_id: int, locking: Literal["", "FOR SHARE", "FOR UPDATE"]) -> Run:
    row = connection.execute(
        text(f"SELECT {COLUMNS} FROM ledger_eod.runs WHERE run_id = :run_id {locking}"),  # noqa: S608 - constants
        {"run_id": run_id},
    ).mappings().one_or_none()  # fmt: skip
    if row is None:
        raise UnknownRun(f"there is no run {run_id}; ledger-eod runs lists them")
    return _run(row)


def list_runs(connection: Connection, *, limit: int = 50, kind: Kind | None = None) -> list[Run]:
    """The newest runs, newest first."""
    rows = connection.execute(
        text(
            f"SELECT {COLUMNS} FROM ledger_eod.runs "  # noqa: S608 - constant columns
            "WHERE CAST(:kind AS ledger_eod.run_kind) IS NULL OR kind = CAST(:kind AS ledger_eod.run_kind) "
            "ORDER BY run_id DESC LIMIT :limit"
        ),
        {"kind": kind, "limit": limit},
    ).mappings()  # fmt: skip
    return [_run(row) for row in rows]


def interim_runs_left_open(connection: Connection, *, before: date) -> list[Run]:
    """The open interim runs of dates before one, oldest first: unlike a close, no later call resumes them by itself."""
    rows = connection.execute(
        text(
            f"SELECT {COLUMNS} FROM ledger_eod.runs "  # noqa: S608 - constant columns
            "WHERE kind = 'interim' AND status = 'open' AND business_date < :before ORDER BY run_id"
        ),
        {"before": before},
    ).mappings()
    return [_run(row) for row in rows]


def newest_certified_close(
    connection: Connection, *, not_after: datetime | None = None, up_to_run_id: int | None = None
) -> Run | None:
    """The newest certified close of the current chain, or the newest that ends at or before an instant.

    A chain starts anew when the database was restored as a copy; the current one is that of the newest close.
    """
    row = connection.execute(
        text(
            f"SELECT {COLUMNS} FROM ledger_eod.runs "  # noqa: S608 - constant columns
            "WHERE kind = 'close' AND status = 'certified' "
            "AND (CAST(:not_after AS timestamptz) IS NULL OR closes_at <= CAST(:not_after AS timestamptz)) "
            "AND (CAST(:up_to AS bigint) IS NULL OR run_id <= CAST(:up_to AS bigint)) "
            "AND genesis_run_id = (SELECT genesis_run_id FROM ledger_eod.runs WHERE kind = 'close' "
            "AND status = 'certified' AND (CAST(:up_to AS bigint) IS NULL OR run_id <= CAST(:up_to AS bigint)) "
            "ORDER BY run_id DESC LIMIT 1) "
            "ORDER BY closes_at DESC LIMIT 1"
        ),
        {"not_after": not_after, "up_to": up_to_run_id},
    ).mappings().one_or_none()  # fmt: skip
    return None if row is None else _run(row)


def certified_close_of(connection: Connection, business_date: date) -> Run:
    """The certified close of one business date.

    Raises:
        UnknownRun: the date has none.
    """
    row = connection.execute(
        text(
            f"SELECT {COLUMNS} FROM ledger_eod.runs "  # noqa: S608 - constant columns
            "WHERE kind = 'close' AND status = 'certified' AND business_date = :business_date"
        ),
        {"business_date": business_date},
    ).mappings().one_or_none()  # fmt: skip
    if row is None:
        raise UnknownRun(f"{business_date} has no certified close; ledger-eod runs lists the dates that have")
    return _run(row)


def lock_open_run(connection: Connection, run_id: int, *, shared: bool = False) -> Run:
    """The run, kept open until the transaction ends: against certification when shared, against batches too if not.

    Raises:
        RunNotOpen: it is certified or abandoned.
        UnknownRun: there is none.
    """
    run = _find_run(connection, run_id, "FOR SHARE" if shared else "FOR UPDATE")
    if run.status != "open":
        raise RunNotOpen(f"{run.name} is {run.status}: it takes no more rows")
    return run


def hold_run(engine: Engine, run_id: int) -> AbstractContextManager[bool]:
    """Hold a run while the block lasts; False at once when another session is at work on it."""
    return hold(engine, "run", run_id)
