"""Balances at any instant, posted and inflight, as known now or as known at an earlier close."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, Row

from ledger_db.close.runs import Run, find_run, newest_certified_close
from ledger_db.core.amounts import WholeParts, whole_amounts
from ledger_db.errors import Hint, UnknowableAt, UnknownBalance
from ledger_db.postings.rules import statement
from ledger_db.server.catalogue import system_identifier
from ledger_db.server.connections import prepared_statements


@dataclass(frozen=True, kw_only=True)
class BalanceAt(WholeParts):
    """A balance at an instant; minor units, ``balance = credit - debit``.

    ``correction_ids``: the corrections that ended a drift of the stored row which lasted at the instant. The figures
    are sums of postings and never had it.
    """

    balance_id: str
    currency: str
    at: datetime
    known_at: Run | None
    from_source: bool
    anchor: Run | None
    correction_ids: tuple[int, ...] = ()


def balance_at(
    connection: Connection,
    balance_id: str,
    instant: datetime,
    *,
    known_at: int | None = None,
    from_source: bool = False,
) -> BalanceAt:
    """One balance just before an instant: every posting effective earlier counts.

    ``known_at`` is a run's id: only what was committed when that run took its cut counts; None counts all that is known
    now. The newest certified close at or before the instant is the anchor: its snapshot, late arrivals that later runs
    collected, and raw postings since. ``from_source`` sums from the first posting instead; the answer is the same.
    Reads only.

    Raises:
        ValueError: the instant has no offset.
        UnknownBalance: no such balance.
        UnknownRun: no such run.
        UnknowableAt: the run's cut was taken on another cluster, so what it knew cannot be reproduced from the rows.
    """
    if instant.tzinfo is None:
        raise ValueError(f"{instant.isoformat()} has no offset: write for instance {instant.isoformat()}+00:00")
    with prepared_statements(connection):
        return _answer(connection, balance_id, instant, known_at, from_source)


def _answer(
    connection: Connection, balance_id: str, instant: datetime, known_at: int | None, from_source: bool
) -> BalanceAt:
    subject = _find_subject(connection, balance_id, instant)
    known = None if known_at is None else find_run(connection, known_at)
    if known is not None:
        _require_reproducible(connection, known)
    collected = _last_collected(connection, known)
    anchor = None
    if collected is not None and not from_source:
        anchor = newest_certified_close(connection, not_after=instant, up_to_run_id=collected.run_id)
    if anchor is None or collected is None:
        row = _balance_at_from_source(connection, balance_id, instant, known)
    else:
        row = _balance_at(connection, subject, instant, anchor=anchor, collected=collected, known=known)
    return BalanceAt(
        balance_id=balance_id, currency=subject.currency, at=instant, known_at=known, from_source=from_source,
        anchor=anchor, correction_ids=tuple(subject.correction_ids), **whole_amounts(row._mapping, other=()),
    )  # fmt: skip


def _find_subject(connection: Connection, balance_id: str, instant: datetime) -> Row[Any]:
    subject = connection.execute(
        statement(connection, "history.find_subject"), {"balance_id": balance_id, "instant": instant}
    ).one_or_none()
    if subject is None:
        raise UnknownBalance(f"there is no balance {balance_id}", hint=Hint.list_balances)
    return subject


def _balance_at_from_source(connection: Connection, balance_id: str, instant: datetime, known: Run | None) -> Row[Any]:
    return connection.execute(
        statement(connection, "history.balance_at_from_source"),
        {"balance_id": balance_id, "instant": instant, "known_cut": None if known is None else known.cut},
    ).one()


def _balance_at(
    connection: Connection, subject: Row[Any], instant: datetime, *, anchor: Run, collected: Run, known: Run | None
) -> Row[Any]:
    return connection.execute(
        statement(connection, "history.balance_at"),
        {
            "balance_id": subject.balance_id,
            "balance_key": subject.balance_key,
            "instant": instant,
            "anchor_date": anchor.business_date,
            "anchor_closes_at": anchor.closes_at,
            "anchor_run_id": anchor.run_id,
            "genesis_run_id": anchor.genesis_run_id,
            "known_run_id": collected.run_id,
            "known_cut": None if known is None else known.cut,
            "uncollected_since": collected.cut if known is None else None,
            "extra_run_id": known.run_id if known is not None and known.kind == "interim" else None,
        },
    ).one()


def _last_collected(connection: Connection, known: Run | None) -> Run | None:
    """The last close whose late arrivals belong to the knowledge asked for; None: sum from the first posting."""
    if known is not None:
        if known.kind == "close":
            return known
        return None if known.base_run_id is None else find_run(connection, known.base_run_id)
    newest = newest_certified_close(connection)
    if newest is not None and newest.system_identifier != system_identifier(connection):
        return None  # a restored copy before its first close
    return newest


def _require_reproducible(connection: Connection, run: Run) -> None:
    if not run.certified:
        raise UnknowableAt(f"{run.name} is {run.status}: only a certified run says what was known")
    if run.system_identifier != system_identifier(connection):
        raise UnknowableAt(
            f"{run.name} was cut before this database was restored as a copy: read its snapshots (view "
            "ledger_eod.daily_balances)"
        )
