"""A close from beginning to end without an orchestrator: the steps that flows map over tasks, one after the other.

Each step is a database transaction of its own, so a run that is interrupted anywhere is resumed by the next call.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, date, datetime
from typing import Final

from sqlalchemy import Engine
from sqlalchemy.exc import DBAPIError

from ledger_db.close.certification import certify_run, refuse_certification
from ledger_db.close.counting import count_piece, finish_counting, plan_hold_pieces, plan_pieces
from ledger_db.close.new_chain import compare_new_chain
from ledger_db.close.opening import abandon_preparations, open_close
from ledger_db.close.runs import Run, find_run, hold_run
from ledger_db.close.snapshots import PLAN_ROUNDS, ensure_partition, plan_key_ranges, write_snapshot_batch
from ledger_db.core.calendar import BusinessCalendar
from ledger_db.errors import NotApproved, NotCertified, RunAtWork, first_line
from ledger_db.settings import get_settings

logger = logging.getLogger(__name__)

#: Called after each step is committed, with its name and a number: of "opened" the run's id, of "counted" the piece, of
#: "written" the range's first key, of the others none.
Report = Callable[[str, int | None], None]


@dataclass(frozen=True)
class CloseResult:
    """A certified run, and how many snapshots this call wrote of it."""

    run: Run
    written: int


def _report_nothing(step: str, key: int | None) -> None:
    """Report to nobody."""


SILENT: Final[Report] = _report_nothing


def close_day(
    engine: Engine,
    business_date: date,
    *,
    calendar: BusinessCalendar | None = None,
    now: datetime | None = None,
    batch_size: int | None = None,
    report: Report = SILENT,
) -> CloseResult:
    """Close one business date, or complete its close where that was interrupted; a certified one is left as it is.

    ``calendar`` and ``batch_size`` default to the settings, ``now`` to the clock.

    Raises:
        RunAtWork: another process is at work on it.
        NotYet: the date has not ended, or another one comes before it.
        NotCertified: the figures do not prove; the reason is stored, and the run stays open.
        NotApproved: it begins a new chain, which somebody must approve; the run stays open.
    """
    with engine.begin() as connection:
        run = open_close(
            connection,
            business_date=business_date,
            calendar=calendar or get_settings().calendar,
            now=now or datetime.now(UTC),
        )
    report("opened", run.run_id)
    return complete_run(engine, run.run_id, batch_size=batch_size, report=report)


def complete_run(engine: Engine, run_id: int, *, batch_size: int | None = None, report: Report = SILENT) -> CloseResult:
    """Hold a run, close or interim, and do what is left of it.

    Raises:
        RunAtWork: another process is at work on it.
        NotCertified: the figures do not prove; the reason is stored, and the run stays open.
        NotApproved: it begins a new chain, which somebody must approve; the run stays open.
    """
    with hold_run(engine, run_id) as mine:
        if not mine:
            raise RunAtWork(f"another process is at work on run {run_id}")
        return resume_run(engine, run_id, batch_size=batch_size, report=report)


def resume_run(engine: Engine, run_id: int, *, batch_size: int | None = None, report: Report = SILENT) -> CloseResult:
    """Do what is left of a run: count its rows, write its snapshots, certify it. The caller should hold the run.

    Without a hold two callers do work twice, and still write each row once.

    Raises:
        NotCertified: the figures do not prove; the reason is stored, and the run stays open.
        NotApproved: it begins a new chain, which somebody must approve; the run stays open.
    """
    with engine.begin() as connection:
        run = find_run(connection, run_id)
    if run.certified:
        report("certified already", None)
        return CloseResult(run, 0)
    if run.collected_at is None:
        count_rows(engine, run_id, report=report)
    written = _write_all(engine, run, batch_size or get_settings().batch_size, report)
    if run.base_run_id is None:
        with engine.begin() as connection:
            compare_new_chain(connection, run_id)
    certified = _certify(engine, run_id)
    report("certified", None)
    if run.kind == "close":
        _clear_up(engine)
    return CloseResult(certified, written)


def _clear_up(engine: Engine) -> None:
    """Remove what was counted in advance. What fails changes nothing of the close; the next preparation does it."""
    try:
        with engine.begin() as connection:
            abandon_preparations(connection)
    except DBAPIError as error:
        logger.warning("what was counted in advance is not removed yet: %s", first_line(error))


def count_rows(engine: Engine, run_id: int, *, piece_size: int | None = None, report: Report = SILENT) -> None:
    """Count what is left of a run's rows, piece by piece, then release the holds that can be."""
    piece_size = piece_size or get_settings().piece_size
    for plan in (plan_pieces, plan_hold_pieces):
        with engine.begin() as connection:
            pieces = plan(connection, run_id, piece_size=piece_size)
        for piece in pieces:
            with engine.begin() as connection:
                count_piece(connection, run_id, piece.piece)
            report("counted", piece.piece)
    with engine.begin() as connection:
        finish_counting(connection, run_id)
    report("collected", None)


def _write_all(engine: Engine, run: Run, batch_size: int, report: Report) -> int:
    written = 0
    for _ in range(PLAN_ROUNDS):
        with engine.begin() as connection:
            ensure_partition(connection, run.business_date)
            ranges = plan_key_ranges(connection, run.run_id, batch_size=batch_size)
        if not ranges:
            break
        report("planned", None)
        for keys in ranges:
            with engine.begin() as connection:
                written += write_snapshot_batch(connection, run.run_id, keys)
            report("written", keys.first_key)
    return written


def _certify(engine: Engine, run_id: int) -> Run:
    try:
        with engine.begin() as connection:
            return certify_run(connection, run_id)
    except (NotCertified, NotApproved) as refusal:
        with engine.begin() as connection:
            refuse_certification(connection, run_id, str(refusal))
        raise
