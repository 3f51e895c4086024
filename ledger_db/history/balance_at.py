"""Balances at any instant, posted and inflight, as known now or as known at an earlier run."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache
from typing import Any

from sqlalchemy import Connection, Row, Select, and_, bindparam, exists, or_, select

from ledger_db.close import tables
from ledger_db.close.cluster import find_cluster
from ledger_db.close.new_chain import table_was_replaced
from ledger_db.close.runs import Run, find_run, newest_certified_close
from ledger_db.core.amounts import WholeParts, whole_amounts
from ledger_db.errors import Hint, UnknowableAt, UnknownBalance
from ledger_db.postings.rules import statement
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


@dataclass(frozen=True)
class _Knowledge:
    """What counts. ``run``: the run that is asked about; None: all that is committed now.

    ``last``: the last close whose counting belongs to it; None: no close's does. ``cluster_id``: this cluster; None: no
    run has taken a cut in it yet, or it does not matter.
    """

    run: Run | None
    last: Run | None
    cluster_id: int | None

    @property
    def is_foreign(self) -> bool:
        """Whether the last close's cut says nothing about what was recorded since: it is of another cluster."""
        return self.run is None and self.last is not None and self.last.cluster_id != self.cluster_id

    def parameters(self, instant: datetime) -> dict[str, Any]:
        """It as the statements take it. At a run, what was pending then counts for instants after its own only."""
        run, last = self.run, self.last
        newest = run or last
        pending = newest if run is None or instant > run.closes_at else None
        return {
            "is_known_now": run is None,
            "genesis_run_id": None if newest is None else newest.genesis_run_id,
            "known_run_id": None if last is None else last.run_id,
            "interim_run_id": run.run_id if run is not None and run.kind == "interim" else None,
            "pending_run_id": None if pending is None else pending.run_id,
            "pending_from_run_id": None if pending is None else pending.pending_from,
            "known_max_transaction_key": None if newest is None else newest.max_transaction_key,
        }


def balance_at(
    connection: Connection,
    balance_id: str,
    instant: datetime,
    *,
    known_at: int | None = None,
    from_source: bool = False,
) -> BalanceAt:
    """One balance just before an instant: every posting effective earlier counts, and holds are released from then on.

    ``known_at`` is a run's id: only what that run and the closes before it counted, and for later instants what was
    pending then, counts; None counts all that is known now. Both are told by keys, so they outlive a restore. The
    newest certified close at or before the instant is the anchor: its snapshot, what later runs counted for its date or
    earlier ones, and raw postings. ``from_source`` sums from the first posting instead; the answer is the same unless a
    row was edited after it was counted. A balance whose row is gone is answered for when a close captured it.
    Reads only.

    Raises:
        ValueError: the instant has no offset.
        UnknownBalance: no such balance.
        UnknownRun: no such run.
        UnknowableAt: the run is not certified, or did not store which rows it counted.
    """
    if instant.tzinfo is None:
        raise ValueError(f"{instant.isoformat()} has no offset: write for instance {instant.isoformat()}+00:00")
    with prepared_statements(connection):
        return _answer(connection, balance_id, instant, known_at, from_source)


def _answer(
    connection: Connection, balance_id: str, instant: datetime, known_at: int | None, from_source: bool
) -> BalanceAt:
    subject = _find_subject(connection, balance_id, instant)
    known = _known_now(connection) if known_at is None else _known_at(connection, known_at, instant, from_source)
    anchor = None if from_source else _anchor(connection, instant, known)
    if anchor is None:
        row = _balance_at_from_source(connection, balance_id, instant, known)
    else:
        row = _balance_at(connection, subject, instant, anchor, known)
    return BalanceAt(
        balance_id=balance_id, currency=subject.currency, at=instant, known_at=known.run, from_source=from_source,
        anchor=anchor, correction_ids=tuple(subject.correction_ids), **whole_amounts(row._mapping, other=()),
    )  # fmt: skip


def _anchor(connection: Connection, instant: datetime, known: _Knowledge) -> Run | None:
    """The newest known close that ends at or before an instant; None: sum from the first posting."""
    last = known.last
    if last is None or (known.is_foreign and not _has_keys(connection, last)):
        return None
    if last.closes_at <= instant:
        return last
    return newest_certified_close(connection, not_after=instant, up_to_run_id=last.run_id)


def _find_subject(connection: Connection, balance_id: str, instant: datetime) -> Row[Any]:
    subject = connection.execute(
        statement(connection, "history.find_subject"), {"balance_id": balance_id, "instant": instant}
    ).one_or_none()
    if subject is None:
        raise UnknownBalance(f"there is no balance {balance_id}", hint=Hint.list_balances)
    return subject


def _balance_at_from_source(connection: Connection, balance_id: str, instant: datetime, known: _Knowledge) -> Row[Any]:
    return connection.execute(
        statement(connection, "history.balance_at_from_source"),
        {"balance_id": balance_id, "instant": instant, **known.parameters(instant)},
    ).one()


def _balance_at(
    connection: Connection, subject: Row[Any], instant: datetime, anchor: Run, known: _Knowledge
) -> Row[Any]:
    assert known.last is not None  # noqa: S101 - the anchor lies in its chain
    follows_cut = known.run is None and not known.is_foreign
    return connection.execute(
        statement(connection, "history.balance_at"),
        {
            "balance_id": subject.balance_id,
            "balance_key": subject.balance_key,
            "instant": instant,
            "anchor_run_id": anchor.run_id,
            "anchor_date": anchor.business_date,
            "anchor_closes_at": anchor.closes_at,
            "raw_since": "-infinity" if known.is_foreign else anchor.closes_at,
            "recorded_since": known.last.cut if follows_cut else None,
            "cluster_id": known.cluster_id,
            **known.parameters(instant),
        },
    ).one()


def _known_now(connection: Connection) -> _Knowledge:
    """All that is committed; its last close is the newest, unless a new chain waits since its table was made anew."""
    newest = newest_certified_close(connection)
    if newest is not None and table_was_replaced(connection, newest):
        newest = None
    return _Knowledge(None, newest, find_cluster(connection))


def _known_at(connection: Connection, run_id: int, instant: datetime, from_source: bool) -> _Knowledge:
    """What a run knew, for an instant."""
    run = find_run(connection, run_id)
    if not run.certified:
        raise UnknowableAt(f"{run.name} is {run.status}: only a certified run says what was known")
    if not _has_keys(connection, run):
        raise UnknowableAt(
            f"{run.name} did not store which rows it counted: read its snapshots (view ledger_eod.daily_balances)"
        )
    is_its_snapshot = run.kind == "close" and run.closes_at == instant and not from_source
    if not is_its_snapshot and table_was_replaced(connection, run):
        raise UnknowableAt(
            f"the transactions that {run.name} counted have other keys since the ledger's table was made anew: it "
            f"answers for {run.closes_at.isoformat()} only, by its snapshots (view ledger_eod.daily_balances)"
        )
    if run.kind == "close":
        return _Knowledge(run, run, None)
    return _Knowledge(run, None if run.base_run_id is None else find_run(connection, run.base_run_id), None)


def _has_keys(connection: Connection, run: Run) -> bool:
    """Whether a run and its chain stored the keys that they counted; without activity there are none to store."""
    return bool(connection.scalar(_keys_are_there(), {"run_id": run.run_id, "genesis_run_id": run.genesis_run_id}))


@lru_cache
def _keys_are_there() -> Select[Any]:
    """Built once, as every query that a look-up needs: building it takes as long as running it."""
    runs, keys, activity = tables.runs, tables.run_keys, tables.activity
    chain = select(runs.c.run_id).where(
        runs.c.genesis_run_id == bindparam("genesis_run_id"), runs.c.kind != "preparation"
    )
    of_run = exists().where(keys.c.run_id == bindparam("run_id"))
    of_chain = exists().where(keys.c.run_id.in_(chain))
    run_acted = exists().where(activity.c.run_id == bindparam("run_id"))
    chain_acted = exists().where(activity.c.run_id.in_(chain))
    return select(and_(or_(of_run, ~run_acted), or_(of_chain, ~chain_acted)))
