"""The units of work of a close. Each is safe to run again: what is written already stays as it is."""

from __future__ import annotations

from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import date, datetime
from typing import Literal

from prefect import get_run_logger, task
from sqlalchemy import Connection

from ledger_db.attach.migrate import require_current
from ledger_db.close import activity, certification, counting, new_chain, opening, preparing, runs, snapshots
from ledger_db.close.counting import CountedRows, Piece
from ledger_db.close.first_close import Choice, first_date_to_close, require_first_date
from ledger_db.close.preparing import Preparation
from ledger_db.close.runs import Run
from ledger_db.close.totals import RunException, RunTotals, exception_counts, exceptions_of, totals_of
from ledger_db.core.calendar import BusinessCalendar
from ledger_db.core.key_ranges import KeyRange
from ledger_db.errors import NotApproved, NotCertified
from ledger_db.server.connections import transaction
from ledger_db.settings import get_settings
from tasks.each import for_each
from tasks.holds import held
from tasks.retries import LEDGER_TASK


@dataclass(frozen=True)
class Certificate:
    """A certified run with its totals, the worst of its exceptions and its late arrivals."""

    run: Run
    totals: list[RunTotals]
    exceptions: list[RunException]
    exception_counts: dict[str, int]
    late_arrivals: list[activity.LateArrival]
    late_totals: list[activity.LateTotals]


def calendar() -> BusinessCalendar:
    """The configured business calendar."""
    return get_settings().calendar


def hold_run(run: Run) -> AbstractContextManager[None]:
    """Hold a run while the block lasts.

    Raises:
        RunAtWork: another process is at work on it.
    """
    return held(runs.hold_run, run.run_id, run.name)


@task(**LEDGER_TASK)
def find_dates_to_close(
    as_of: datetime, since: date | None, until: date | None, choice: Choice | None, *, confirmed: bool
) -> list[date]:
    """The business dates that have ended by ``as_of`` and have no certified close, in order, up to ``until``.

    Raises:
        FirstCloseUndecided: the ledger has a history and no close, and nobody has chosen where its closes begin.
    """
    last_ended = calendar().last_ended(as_of)
    with transaction() as connection:
        require_current(connection)
        first = first_date_to_close(
            connection, calendar=calendar(), last=until or last_ended, since=since, choice=choice, confirmed=confirmed
        )
        return opening.dates_to_close(connection, last_ended=last_ended, since=first or since, until=until)


@task(**LEDGER_TASK)
def open_run(kind: Literal["close", "interim"], business_date: date | None, as_of: datetime) -> Run | None:
    """Open the run, or find the one to resume; None when an interim run would have nothing to capture."""
    with transaction() as connection:
        require_current(connection)
        if kind == "close":
            last_ended = calendar().last_ended(as_of)
            due = business_date or _next_date(connection, last_ended)
            require_first_date(connection, due, calendar=calendar(), now=as_of)
            run: Run | None = opening.open_close(connection, business_date=due, calendar=calendar(), now=as_of)
        else:
            run = opening.open_interim(connection, business_date=business_date, calendar=calendar(), now=as_of)
    if run is not None:
        get_run_logger().info("%s is %s, cut %s", run.name, run.status, run.cut)
    return run


def _next_date(connection: Connection, last_ended: date) -> date:
    """The next date in turn; the last one that has ended where none is missing."""
    first = first_date_to_close(connection, calendar=calendar(), last=last_ended)
    missing = opening.dates_to_close(connection, last_ended=last_ended, since=first)
    return (missing or [last_ended])[0]


@task(**LEDGER_TASK)
def reload_run(run_id: int) -> Run:
    """The run as it is now."""
    with transaction() as connection:
        return runs.find_run(connection, run_id)


@task(**LEDGER_TASK)
def open_preparation(as_of: datetime) -> Preparation:
    """Plan what came since the last preparation of the date in progress, and return all of it that is undone.

    Raises:
        NothingToPrepare: the date before is not closed, or a close is open.
    """
    with transaction() as connection:
        require_current(connection)
    reached, all_ended = preparing.wait_for_writers(transaction)
    if not all_ended:
        get_run_logger().warning(
            "a transaction has been under way for %s s: what it writes is counted again at the close",
            preparing.WRITERS_SECONDS,
        )
    with transaction() as connection:
        return preparing.open_preparation(
            connection, calendar=calendar(), now=as_of, reached=reached, piece_size=get_settings().piece_size
        )


@task(**LEDGER_TASK)
def plan_pieces(run_id: int) -> list[Piece]:
    """The pieces of the run's rows that are not counted yet."""
    with transaction() as connection:
        return counting.plan_pieces(connection, run_id, piece_size=get_settings().piece_size)


@task(**LEDGER_TASK)
def plan_hold_pieces(run_id: int) -> list[Piece]:
    """The pieces of the run's holds that are not released yet; all of its rows are counted."""
    with transaction() as connection:
        return counting.plan_hold_pieces(connection, run_id, piece_size=get_settings().piece_size)


@task(**LEDGER_TASK)
def count_pieces(run_id: int, pieces: list[Piece]) -> int:
    """Do some pieces in a row, each its own transaction, and return how many.

    A piece that fails does not keep the others from being done.

    Raises:
        BatchFailed: names each piece that failed and why.
    """

    def count(piece: Piece) -> None:
        with transaction() as connection:
            counting.count_piece(connection, run_id, piece.piece)

    return len(for_each(count, pieces, failure=f"run {run_id} could not count ", written=lambda _: 0))


@task(**LEDGER_TASK)
def finish_counting(run_id: int) -> CountedRows:
    """Note that every row of the run is counted."""
    with transaction() as connection:
        counted = counting.finish_counting(connection, run_id)
    get_run_logger().info(
        "run %s: %s rows counted, %s pending, %s of them gone; %s rows of late activity, %s exceptions",
        run_id, counted.counted, counted.pending, counted.gone, counted.late_activity, counted.exceptions,
    )  # fmt: skip
    return counted


@task(**LEDGER_TASK)
def plan_batches(run_id: int, batch_size: int) -> list[KeyRange]:
    """The key ranges that lack their snapshots. Creates the month's partition where it is missing."""
    with transaction() as connection:
        run = runs.find_run(connection, run_id)
        snapshots.ensure_partition(connection, run.business_date)
        return snapshots.plan_key_ranges(connection, run_id, batch_size=batch_size)


@task(**LEDGER_TASK)
def write_snapshots(run_id: int, batches: list[KeyRange]) -> int:
    """Write some batches in a row, each its own transaction, and return how many rows are new.

    A batch that fails does not keep the others from being written.

    Raises:
        BatchFailed: names each range that failed and why.
    """

    def write(batch: KeyRange) -> int:
        with transaction() as connection:
            return snapshots.write_snapshot_batch(connection, run_id, batch)

    return sum(for_each(write, batches, failure=f"run {run_id} could not write ", written=int))


@task(**LEDGER_TASK)
def compare_new_chain(run_id: int) -> None:
    """Store by what a run that begins a new chain differs from the close before it."""
    with transaction() as connection:
        new_chain.compare_new_chain(connection, run_id)


@task(**LEDGER_TASK)
def certify_run(run_id: int) -> Certificate:
    """Prove the run's figures and certify it.

    Raises:
        NotCertified: the figures do not prove; the reason is stored with the run, which stays open.
        NotApproved: it begins a new chain, which somebody must approve; the run stays open.
    """
    try:
        with transaction() as connection:
            certification.certify_run(connection, run_id)
    except (NotCertified, NotApproved) as refusal:
        with transaction() as connection:
            certification.refuse_certification(connection, run_id, str(refusal))
        raise
    return read_certificate.fn(run_id)


@task(**LEDGER_TASK)
def abandon_preparations() -> None:
    """Remove what was counted in advance for closes that are certified."""
    with transaction() as connection:
        opening.abandon_preparations(connection)


@task(**LEDGER_TASK)
def read_certificate(run_id: int) -> Certificate:
    """A certified run's totals, exceptions and late arrivals, for reports."""
    with transaction() as connection:
        return Certificate(
            run=runs.find_run(connection, run_id),
            totals=totals_of(connection, run_id),
            exceptions=exceptions_of(connection, run_id),
            exception_counts=exception_counts(connection, run_id),
            late_arrivals=activity.late_arrivals(connection, run_id),
            late_totals=activity.late_totals(connection, run_id),
        )
