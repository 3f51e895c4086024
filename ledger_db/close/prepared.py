"""Pieces counted in advance: what a close takes over of them.

A piece of a preparation says what counting its rows said then. The close takes it over only where counting them now
would say the same: then figures, keys and digests are those of a close that was never prepared.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import pairwise
from math import ceil
from typing import Any, Final

from sqlalchemy import Connection

from ledger_db.close.runs import Run
from ledger_db.postings.rules import statement

#: Taking rows over costs less than counting them, and activity that is put together makes certification shorter.
PIECES_PUT_TOGETHER: Final = 2


@dataclass(frozen=True)
class PreparedRange:
    """A range of keys that was counted in advance, of one or more pieces that lie end to end."""

    first_key: int
    last_key: int
    row_count: int
    piece_count: int = 1


@dataclass(frozen=True)
class Part:
    """A part of a close's piece: to be taken over where it ``fits``, else to be counted."""

    first_key: int
    last_key: int
    fits: bool


def prepared_pieces(connection: Connection, run: Run, *, piece_size: int) -> list[PreparedRange]:
    """What was counted in advance for a close, in key order, in ranges of a like size, each of few pieces' rows."""
    parameters = {
        "run_id": run.run_id, "max_transaction_key": run.max_transaction_key, "piece_size": piece_size,
    }  # fmt: skip
    rows = connection.execute(statement(connection, "close.prepared_pieces"), parameters)
    found = [PreparedRange(*row) for row in rows]
    row_count = sum(piece.row_count for piece in found)
    range_count = ceil(row_count / (PIECES_PUT_TOGETHER * piece_size)) or 1
    ranges: list[PreparedRange] = []
    rows_before, last_place = 0, -1
    for piece in found:
        place = rows_before * range_count // (row_count or 1)
        if ranges and place == last_place and piece.first_key == ranges[-1].last_key + 1:
            ranges[-1] = _and(ranges[-1], piece)
        else:
            ranges.append(piece)
        rows_before, last_place = rows_before + piece.row_count, place
    return ranges


def _and(before: PreparedRange, piece: PreparedRange) -> PreparedRange:
    return PreparedRange(
        before.first_key, piece.last_key, before.row_count + piece.row_count, before.piece_count + piece.piece_count
    )


def fitting_pieces(connection: Connection, parameters: Mapping[str, Any]) -> list[Part]:
    """The parts of a close's piece, end to end; neighbours that fit are put together.

    ``parameters``: of the close, with ``first_key``, ``last_key`` and ``rules``.
    """
    first_key, last_key = parameters["first_key"], parameters["last_key"]
    found = [Part(*row) for row in connection.execute(statement(connection, "close.fitting_pieces"), parameters)]
    if not _lie_end_to_end(found, first_key, last_key):
        return [Part(first_key, last_key, fits=False)]
    return list(_put_together(found))


def take_over_piece(connection: Connection, parameters: Mapping[str, Any]) -> bool:
    """Do a piece of a close by what was counted in advance; False: that does not cover it, and it stays undone."""
    return connection.execute(statement(connection, "close.take_over_piece"), parameters).rowcount == 1


def _lie_end_to_end(parts: list[Part], first_key: int, last_key: int) -> bool:
    return (
        bool(parts)
        and parts[0].first_key == first_key
        and parts[-1].last_key == last_key
        and all(after.first_key == before.last_key + 1 for before, after in pairwise(parts))
    )


def _put_together(parts: list[Part]) -> Iterator[Part]:
    current = parts[0]
    for part in parts[1:]:
        if part.fits and current.fits:
            current = replace(current, last_key=part.last_key)
        else:
            yield current
            current = part
    yield current
