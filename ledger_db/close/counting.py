"""Counting: each row is counted once, by its key, in pieces that can be done in any order, by anyone, and again.

A run looks at two kinds of rows. Older keys lie at or below the highest key of its base: what was pending there, and
what came since. New keys lie above it; some of them may have been counted in advance. All are planned as pieces of a
bounded number of rows. A piece is one short transaction: it looks at its rows once, and stores activity, exceptions, a
digest and the keys that it counted and left pending. When all rows are counted, further pieces release holds, decided
by the stored keys.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from functools import lru_cache
from hashlib import sha256
from typing import Any, Final, Literal

from sqlalchemy import ColumnElement, Connection, exists, func, insert, select, update

from ledger_db.close import tables
from ledger_db.close.cut import BELOW_EVERY_KEY, base_of, base_parameters, cut_parameters
from ledger_db.close.prepared import PreparedRange, fitting_pieces, prepared_pieces, take_over_piece
from ledger_db.close.runs import Run, lock_open_run, require_no_preparation
from ledger_db.core.statements import source
from ledger_db.errors import Hint, RunNotOpen
from ledger_db.postings.rules import statement
from ledger_db.server.connections import in_memory, set_local

ONE_DAY = timedelta(days=1)

#: The pieces of a preparation end with a part of 1,024 keys, as digests are made of: so they can be put together.
PART_MASK: Final = 1023

#: How a preparation counts: with the balances that it found, where no run has captured them.
_OF_PREPARATION: Final = ("close.answered_balances", "close.prepared_balances")


@dataclass(frozen=True)
class Piece:
    """A part of a run's rows. ``work``: older keys, new keys, new keys counted in advance, or holds to release."""

    piece: int
    work: Literal["older", "new", "prepared", "holds"]
    first_key: int
    last_key: int

    def __str__(self) -> str:
        first = "up to " if self.first_key == BELOW_EVERY_KEY + 1 else f"{self.first_key}–"
        return f"piece {self.piece} ({self.work}, keys {first}{self.last_key})"


@dataclass(frozen=True)
class CountedRows:
    """What a run counted: numbers of rows. ``settled``: of statuses that never count; ``gone``: of the pending ones."""

    counted: int
    settled: int
    pending: int
    gone: int
    late_activity: int
    exceptions: int


def plan_pieces(connection: Connection, run_id: int, *, piece_size: int) -> list[Piece]:
    """The pieces of a run's rows that are not done, planned by the first call; each of about ``piece_size`` rows.

    Raises:
        RunNotOpen: the run is certified or abandoned, or is a preparation.
    """
    run = lock_open_run(connection, run_id)
    require_no_preparation(run)
    if run.planned_at is None:
        parameters = _parameters(connection, run) | {"piece_size": piece_size, "part_mask": 0}
        _plan_older_pieces(connection, parameters)
        after_key = parameters["base_max_transaction_key"]
        for ready in prepared_pieces(connection, run, piece_size=piece_size):
            _plan_new_pieces(connection, parameters, after_key=after_key, up_to_key=ready.first_key - 1)
            _plan_prepared_piece(connection, run_id, ready)
            after_key = ready.last_key
        _plan_new_pieces(connection, parameters, after_key=after_key, up_to_key=run.max_transaction_key)
        _note_planned(connection, run_id)
    return _undone(connection, run_id, tables.run_pieces.c.work != "holds")


def plan_preparation(connection: Connection, run_id: int, *, after_key: int, piece_size: int) -> None:
    """Plan the pieces of a preparation: the keys above ``after_key``, up to its highest.

    Raises:
        RunNotOpen: it was given up.
    """
    run = lock_open_run(connection, run_id)
    parameters = {"run_id": run_id, "piece_size": piece_size, "part_mask": PART_MASK}
    _plan_new_pieces(connection, parameters, after_key=after_key, up_to_key=run.max_transaction_key)
    _note_planned(connection, run_id)


def plan_hold_pieces(connection: Connection, run_id: int, *, piece_size: int) -> list[Piece]:
    """The pieces of a run's holds that are not done, planned by the first call. All rows must be counted before.

    Raises:
        RunNotOpen: the run is certified or abandoned, or some of its rows are not counted.
    """
    run = lock_open_run(connection, run_id)
    require_no_preparation(run)
    pieces = tables.run_pieces
    _require_done(run, _undone(connection, run_id, pieces.c.work != "holds"))
    planned = exists().where(pieces.c.run_id == run_id, pieces.c.work == "holds")
    if not connection.scalar(select(planned)):
        connection.execute(
            statement(connection, "close.plan_hold_pieces"),
            {"run_id": run_id, "base_run_id": run.base_run_id, "piece_size": piece_size},
        )
    return _undone(connection, run_id, pieces.c.work == "holds")


def undone_pieces(connection: Connection, run_id: int) -> list[Piece]:
    """The pieces of a run that are planned and not done."""
    return _undone(connection, run_id, tables.run_pieces.c.piece.is_not(None))


def count_piece(connection: Connection, run_id: int, piece: int) -> None:
    """Do one piece of a run, in one transaction; a piece that is done stays as it is.

    The commit does not wait for the disk: certification's commit does, and what a crash loses is done again.

    Raises:
        RunNotOpen: the run is certified or abandoned.
    """
    run = lock_open_run(connection, run_id, shared=True)
    pieces = tables.run_pieces
    found = connection.execute(
        select(pieces.c.work, pieces.c.first_key, pieces.c.last_key, pieces.c.done_at)
        .where(pieces.c.run_id == run_id, pieces.c.piece == piece)
        .with_for_update()
    ).one()
    if found.done_at is not None:
        return
    set_local(connection, "synchronous_commit", "off")
    in_memory(connection)
    set_local(connection, "jit", "off")
    set_local(connection, "enable_memoize", "off")  # taken for cheaper than a hash of the balances, and is not
    set_local(connection, "enable_hashagg", "off")  # the same: activity is written in key order
    parameters = _parameters(connection, run) | {
        "piece": piece, "first_key": found.first_key, "last_key": found.last_key,
    }  # fmt: skip
    if found.work == "holds":
        _release_holds(connection, parameters)
    elif found.work == "prepared":
        _do_prepared_piece(connection, parameters)
    else:
        _count_piece(connection, parameters, work=found.work, is_preparation=run.kind == "preparation")


def finish_counting(connection: Connection, run_id: int) -> CountedRows:
    """Note that all pieces of a run are done, and return what it counted.

    Raises:
        RunNotOpen: the run is certified or abandoned, or a piece is not done; or it is a preparation.
    """
    run = lock_open_run(connection, run_id)
    require_no_preparation(run)
    if run.collected_at is None:
        _require_done(run, undone_pieces(connection, run_id))
        connection.execute(
            update(tables.runs).where(tables.runs.c.run_id == run_id).values(collected_at=func.clock_timestamp())
        )
    return counted_rows(connection, run_id)


def counted_rows(connection: Connection, run_id: int) -> CountedRows:
    """What a run counted so far."""
    pieces, activity, itemised = tables.run_pieces, tables.activity, tables.run_exceptions
    rows = pieces.c.work != "holds"
    late = select(func.count()).where(activity.c.run_id == run_id, activity.c.is_late).scalar_subquery()
    exceptions = (
        select(func.count(itemised.c.transaction_key.distinct()))
        .where(itemised.c.run_id == run_id)
        .scalar_subquery()
    )  # fmt: skip
    row = connection.execute(
        select(
            *(
                func.coalesce(func.sum(pieces.c[f"{fate}_count"]).filter(rows), 0)
                for fate in ("counted", "settled", "pending", "gone")
            ),
            late,
            exceptions,
        ).where(pieces.c.run_id == run_id)
    ).one()
    return CountedRows(*map(int, row))


def _plan_older_pieces(connection: Connection, parameters: Mapping[str, Any]) -> None:
    connection.execute(statement(connection, "close.plan_older_pieces"), parameters)


def _plan_new_pieces(connection: Connection, parameters: Mapping[str, Any], *, after_key: int, up_to_key: int) -> None:
    if after_key < up_to_key:
        connection.execute(
            statement(connection, "close.plan_new_pieces"),
            {**parameters, "after_key": after_key, "up_to_key": up_to_key},
        )


def _plan_prepared_piece(connection: Connection, run_id: int, ready: PreparedRange) -> None:
    """Plan one piece. The numbers before its own are left to its parts, if they turn out not to be alike."""
    pieces = tables.run_pieces
    highest = connection.scalar(
        select(func.coalesce(func.max(pieces.c.piece), 0)).where(pieces.c.run_id == run_id)
    )  # fmt: skip
    connection.execute(
        insert(pieces).values(
            run_id=run_id, piece=(highest or 0) + ready.piece_count, work="prepared",
            first_key=ready.first_key, last_key=ready.last_key,
        )
    )  # fmt: skip


def _note_planned(connection: Connection, run_id: int) -> None:
    runs = tables.runs
    connection.execute(update(runs).where(runs.c.run_id == run_id).values(planned_at=func.clock_timestamp()))


def _count_piece(
    connection: Connection, parameters: Mapping[str, Any], *, work: Literal["older", "new"], is_preparation: bool
) -> None:
    variants = (("close.piece_rows", f"close.{work}_rows"), *((_OF_PREPARATION,) if is_preparation else ()))
    connection.execute(
        statement(connection, "close.count_piece", *variants),
        {**parameters, "is_older": work == "older", "rules": _rules() if is_preparation else None},
    )


def _do_prepared_piece(connection: Connection, parameters: Mapping[str, Any]) -> None:
    """Take over what still fits of a piece, and count the rest: each of these parts is a piece then."""
    pieces = tables.run_pieces
    run_id, piece = parameters["run_id"], parameters["piece"]
    parts = fitting_pieces(connection, {**parameters, "rules": _rules()})
    for number, part in enumerate(reversed(parts)):
        keys = {"first_key": part.first_key, "last_key": part.last_key}
        of_part = {**parameters, **keys, "piece": piece - number}
        work = "prepared" if part.fits else "new"
        if number:
            connection.execute(insert(pieces).values(run_id=run_id, piece=piece - number, work=work, **keys))
        else:
            connection.execute(
                update(pieces).where(pieces.c.run_id == run_id, pieces.c.piece == piece).values(work=work, **keys)
            )
        if not part.fits:
            _count_piece(connection, of_part, work="new", is_preparation=False)
        elif not take_over_piece(connection, of_part):  # given up just now
            raise RunNotOpen(f"run {run_id}: what was counted for it in advance is gone", hint=Hint.run_again)


@lru_cache
def _rules() -> str:
    """What is counted in advance in another way, by another version of this project, does not fit."""
    how = (("close.piece_rows", "close.new_rows"), _OF_PREPARATION, ("postings.rate", "postings.legacy_rate"))
    return sha256(source("close.count_piece", how).encode()).hexdigest()


def _release_holds(connection: Connection, parameters: Mapping[str, Any]) -> None:
    connection.execute(statement(connection, "close.release_holds"), parameters)


def _undone(connection: Connection, run_id: int, of_work: ColumnElement[bool]) -> list[Piece]:
    pieces = tables.run_pieces
    rows = connection.execute(
        select(pieces.c.piece, pieces.c.work, pieces.c.first_key, pieces.c.last_key)
        .where(pieces.c.run_id == run_id, pieces.c.done_at.is_(None), of_work)
        .order_by(pieces.c.piece)
    )
    return [Piece(*row) for row in rows]


def _require_done(run: Run, undone: list[Piece]) -> None:
    if run.planned_at is None or undone:
        what = f"{len(undone)} of its pieces are" if run.planned_at else "its rows are"
        raise RunNotOpen(f"{run.name}: {what} not counted yet", hint=Hint.run_again)


def _parameters(connection: Connection, run: Run) -> dict[str, Any]:
    """A run and its base as the statements take them."""
    base = base_of(connection, run)
    on_time = run.business_date if base is None else max(run.business_date, base.business_date + ONE_DAY)
    return {
        "run_id": run.run_id, "business_date": run.business_date, "on_time_date": on_time,
        "closes_at": run.closes_at, "genesis_run_id": run.genesis_run_id, "time_zone": run.time_zone,
        "cut_off": run.cut_off, "max_transaction_key": run.max_transaction_key, "is_whole": run.stores_all_pending,
        **cut_parameters(connection, run.cut), **base_parameters(connection, base),
    }  # fmt: skip
