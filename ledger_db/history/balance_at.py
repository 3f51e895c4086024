"""Balances at any instant, posted and inflight, as known now or as known at an earlier close."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import Connection, text

from ledger_db.close.runs import Run, find_run, newest_certified_close
from ledger_db.core.amounts import whole
from ledger_db.errors import UnknowableAt, UnknownBalance
from ledger_db.postings.rules import statement
from ledger_db.server.catalogue import system_identifier
from ledger_db.server.connections import prepared_statements


@dataclass(frozen=True)
class BalanceAt:
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
    credit_balance: int
    debit_balance: int
    inflight_credit_balance: int
    inflight_debit_balance: int
    correction_ids: tuple[int, ...] = ()

    @property
    def balance(self) -> int:
        """Credit minus debit."""
        return self.credit_balance - self.debit_balance

    @property
    def inflight_balance(self) -> int:
        """Inflight credit minus inflight debit."""
        return self.inflight_credit_balance - self.inflight_debit_balance


def balance_at(
    connection: Connection,
    balance_id: str,
    instant: datetime,
    *,
    known_at: int | None = None,
    from_source: bool = False,
) -> BalanceAt:
    """One balance just before an instant: every posting effective earlier counts.

    ``known_at`` is a run's id: only what was committed when that run took its cut counts; None counts everything known
    now. The newest certified close at or before the instant is the anchor: its snapshot, late arrivals that later runs
    collected, and raw postings since. ``from_source`` sums from the first posting instead; the answer is the same.
    Reads only.

    Raises:
        ValueError: the instant has no offset.
        UnknownBalance: no such balance.
        UnknownRun: no such run.
        UnknowableAt: the run's cut was taken on another cluster, so what it knew cannot be told from the rows.
    """
    if instant.tzinfo is None:
        raise ValueError(f"{instant.isoformat()} has no offset: write for instance {instant.isoformat()}+00:00")
    with prepared_statements(connection):
        return _balance_at(connection, balance_id, instant, known_at, from_source)


def _balance_at(
    connection: Connection, balance_id: str, instant: datetime, known_at: int | None, from_source: bool
) -> BalanceAt:
    subject = connection.execute(
        text(
            "SELECT id, currency, ARRAY(SELECT correction_id FROM ledger_eod.corrections "
            "WHERE balance_key = balances.id AND corrected_at > :instant "
            "AND COALESCE(drifted_since, '-infinity') <= :instant ORDER BY correction_id) AS correction_ids "
            "FROM blnk.balances WHERE balance_id = :balance_id"
        ),
        {"balance_id": balance_id, "instant": instant},
    ).one_or_none()
    if subject is None:
        raise UnknownBalance(f"there is no balance {balance_id}; ledger-eod balances lists them")
    known = None if known_at is None else find_run(connection, known_at)
    if known is not None:
        _require_tellable(connection, known)
    # the last close whose collected late arrivals belong to the knowledge asked for
    collected = known
    if known is not None and known.kind == "interim":
        collected = None if known.base_run_id is None else find_run(connection, known.base_run_id)
    elif known is None:
        collected = newest_certified_close(connection)
        if collected is not None and collected.system_identifier != system_identifier(connection):
            collected = None  # a restored copy before its first close: sum from the first posting
    anchor = None
    if collected is not None and not from_source:
        anchor = newest_certified_close(connection, not_after=instant, up_to_run_id=collected.run_id)
    if anchor is None or collected is None:
        row = connection.execute(
            statement(connection, "history.balance_at_from_source"),
            {"balance_id": balance_id, "instant": instant, "known_cut": None if known is None else known.cut},
        ).one()
    else:
        row = connection.execute(
            statement(connection, "history.balance_at"),
            {
                "balance_id": balance_id,
                "balance_key": subject.id,
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
    credit, debit, inflight_credit, inflight_debit = (whole(amount) for amount in row)
    return BalanceAt(
        balance_id, subject.currency, instant, known, from_source, anchor, credit, debit, inflight_credit,
        inflight_debit, tuple(subject.correction_ids),
    )  # fmt: skip


def _require_tellable(connection: Connection, run: Run) -> None:
    if not run.certified:
        raise UnknowableAt(f"{run.name} is {run.status}: only a certified run says what was known")
    if run.system_identifier != system_identifier(connection):
        raise UnknowableAt(
            f"{run.name} was cut before this database was restored as a copy: what it knew is told by its own "
            "snapshots only (view ledger_eod.daily_balances)"
        )
