"""A new chain of closes, after a repair that the closes so far cannot be continued over.

Its first close is counted from the first posting, by itself. The closes before it stay as evidence. What differs
between the two is stored per balance and transaction, under one hash, and somebody else than the proposer must approve
it before that first close is certified.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from datetime import date, datetime, timedelta
from functools import lru_cache
from typing import Any, Final

from sqlalchemy import ColumnElement, Connection, Select, bindparam, exists, func, insert, literal, select, update

from ledger_db.books.tables import transactions
from ledger_db.close import tables
from ledger_db.close.cluster import serialise_opening
from ledger_db.close.figure_digests import digest_figures
from ledger_db.close.opening import (
    ONE_DAY,
    abandon_run,
    come_into_cluster,
    insert_run,
    require_ended,
    require_in_order,
)
from ledger_db.close.row_digests import digests_then_and_now
from ledger_db.close.runs import Run, all_runs, find_run, lock_open_run, newest_certified_close, select_runs
from ledger_db.close.samples import has_same_rows
from ledger_db.core.amounts import PART_COLUMNS, Parts
from ledger_db.core.calendar import BusinessCalendar
from ledger_db.errors import Hint, NewChainRefused, NotApproved, NotCertified, UnknownProposal, UnknownRun
from ledger_db.evidence.approvals import Approval, approvals_of, decide, is_named
from ledger_db.postings.rules import statement
from ledger_db.server.connections import one_snapshot, without_time_limit
from ledger_db.settings import get_settings

#: The subject of a run's figures that an approval is about.
SUBJECT: Final = "new chain"


@dataclass(frozen=True)
class NewChain:
    """Who began a chain and why; by what it differs, once it is compared; and the approval, once it is certified.

    None until it is compared: ``has_same_rows``: the previous chain's keys stand for the rows that it looked at; if
    not, they say nothing of today's rows, and no transactions are itemised. ``gone_count``: keys that it counted and
    that have no row any more; of other rows, sampled transactions that are nowhere. ``changed_dates``: of its closes
    whose rows say something else now; of other rows, add up to something else.
    """

    run_id: int
    previous_run_id: int
    reason: str
    proposed_by: str
    proposed_at: datetime
    has_same_rows: bool | None
    gone_count: int | None
    changed_dates: list[date] | None
    compared_at: datetime | None
    figures_hash: str | None
    approval_id: int | None

    @property
    def flow_run_id(self) -> str | None:
        """None: no orchestrator's run proposes a new chain."""
        return None


@dataclass(frozen=True)
class ChainDifference:
    """One balance at the end of the previous chain's last close: as that close has it, and as the new chain has it.

    ``transactions``: those that only one of the two counts, largest first. ``rest``: what all of these leave of the
    difference, since rows were edited or are gone.
    """

    balance_id: str
    currency: str
    previous: Parts
    present: Parts
    rest: Parts
    transactions: list[ChainTransaction]


@dataclass(frozen=True)
class ChainTransaction:
    """A transaction that only the new chain counts for that instant, or, with negative parts, only the previous one."""

    transaction_id: str
    is_added: bool
    parts: Parts


_COLUMNS: Final = [tables.new_chains.c[field.name] for field in fields(NewChain)]


def open_new_chain(
    connection: Connection, *, reason: str, proposed_by: str, calendar: BusinessCalendar, now: datetime
) -> Run:
    """Open the first close of a new chain, of the date after the newest certified one; or return the one that is open.

    Locks no ledger row.

    Raises:
        NewChainRefused: it has no reason or nobody's name, or another reason than the open one; or there is no close
            yet, so that the first one begins a chain by itself.
        PeriodNotEnded: the date has not ended at ``now``.
        OutOfOrder: a close is open.
        ForeignRecords: transactions were copied in with another cluster's transaction ids.
    """
    if not reason.strip() or not is_named(proposed_by):
        raise NewChainRefused("a new chain is evidence: it needs a reason, and the name of who proposes it")
    serialise_opening(connection)
    unfinished = open_one(connection)
    if unfinished is not None:
        if (unfinished.reason, unfinished.proposed_by) != (reason.strip(), proposed_by.strip()):
            raise NewChainRefused(
                f"{unfinished.proposed_by} has proposed a new chain already, which is not certified: "
                f"{unfinished.reason!r}. Abandon run {unfinished.run_id} to propose another"
            )
        return find_run(connection, unfinished.run_id)
    previous = newest_certified_close(connection)
    if previous is None:
        raise NewChainRefused(
            "there is no certified close: the first close begins a chain by itself", hint=Hint.close_missing_dates
        )
    business_date = previous.business_date + ONE_DAY
    closes_at = require_ended(calendar, business_date, now)
    require_in_order(connection, business_date, closes_at)
    cluster_id = come_into_cluster(connection)
    run = insert_run(
        connection, business_date=business_date, kind="close", calendar=calendar, closes_at=closes_at,
        caught_up=business_date < calendar.last_ended(now), cluster_id=cluster_id, base=None, follows=previous,
    )  # fmt: skip
    connection.execute(
        insert(tables.new_chains).values(
            run_id=run.run_id, previous_run_id=previous.run_id, reason=reason.strip(), proposed_by=proposed_by.strip()
        )
    )  # fmt: skip
    return run


def compare_new_chain(connection: Connection, run_id: int) -> NewChain | None:
    """Store by what a run that begins a new chain differs from the chain before, under one hash; None of other runs.

    Needs all of its rows counted, and to be the first in its database transaction: it reads one MVCC snapshot. A second
    call changes nothing. Cost: two passes over the ledger, and one over the rows that the previous chain counted.

    Raises:
        NotCertified: rows were changed after the run counted them.
        RunNotOpen: it is certified or abandoned.
    """
    one_snapshot(connection)
    chain = find_new_chain(connection, run_id)
    if chain is None or chain.compared_at is not None:
        return chain
    run = lock_open_run(connection, run_id)
    without_time_limit(connection)
    previous = find_run(connection, chain.previous_run_id)
    same = has_same_rows(connection, previous)
    parameters = {
        "run_id": run_id, "previous_run_id": previous.run_id, "previous_genesis_run_id": previous.genesis_run_id,
        "previous_business_date": previous.business_date, "previous_closes_at": previous.closes_at,
        "has_same_rows": same,
    }  # fmt: skip
    _compare_chains(connection, run, parameters)
    _update(
        connection, run_id, compared_at=func.clock_timestamp(), has_same_rows=same,
        gone_count=_count_gone_keys(connection, parameters) if same else _count_gone_samples(connection, parameters),
        changed_dates=_changed_dates(connection, previous) if same else _dates_that_differ(connection, parameters),
    )  # fmt: skip
    _update(connection, run_id, figures_hash=_figures_hash(connection, run_id))
    return _required(connection, run_id)


def approve_new_chain(
    connection: Connection, figures_hash: str, *, decided_by: str, channel: str
) -> tuple[NewChain, Approval]:
    """Store an approval of an open new chain's differences; one that does not count is stored as refused.

    Raises:
        UnknownProposal: no new chain that waits has this hash; all its digits are needed.
    """
    chain = open_one(connection)
    if chain is None or chain.figures_hash is None or chain.figures_hash != figures_hash.strip().lower():
        raise UnknownProposal(f"no new chain waits with the hash {figures_hash}", hint=Hint.show_new_chain)
    return chain, decide(connection, chain, decision="approved", decided_by=decided_by, channel=channel)


def require_approval(connection: Connection, run: Run) -> None:
    """Let only a close that another person has approved begin a new chain, and use the approval; others pass.

    Raises:
        NotCertified: it has no base and nobody proposed it, or its differences are not what was stored for approval.
        NotApproved: nobody has approved them, or not lately.
    """
    if run.kind != "close" or run.base_run_id is not None:
        return
    chain = find_new_chain(connection, run.run_id)
    if chain is None:
        runs = tables.runs
        earlier = exists().where(runs.c.kind == "close", runs.c.status == "certified")
        if connection.scalar(select(earlier)):
            raise NotCertified(f"{run.name} continues no close, and nobody proposed a new chain")
        return
    if chain.figures_hash is None:
        raise NotCertified(f"{run.name} is not compared with the close before it", hint=Hint.run_again)
    if chain.figures_hash != _figures_hash(connection, run.run_id):
        raise NotCertified(f"{run.name}: its differences were changed after they were stored for approval")
    used = set(connection.scalars(select(tables.new_chains.c.approval_id)))
    given = approvals_of(connection, chain, within=timedelta(hours=get_settings().approval_hours))
    approval = next((each for each in given if each.approval_id not in used), None)
    if approval is None:
        raise NotApproved(
            f"{run.name} begins a new chain, which {chain.proposed_by} proposed and somebody else must approve: "
            f"{chain.reason}. Hash {chain.figures_hash}",
            hint=Hint.approve_new_chain,
        )
    _update(connection, run.run_id, approval_id=approval.approval_id)
    _abandon_interim_runs(connection, run)


def _abandon_interim_runs(connection: Connection, run: Run) -> None:
    """Abandon the open interim runs of the chain that ends: their base is not the newest close any more."""
    runs = tables.runs
    left = select(runs.c.run_id).where(
        runs.c.kind == "interim", runs.c.status == "open", runs.c.genesis_run_id != run.genesis_run_id
    )
    for run_id in connection.scalars(left).all():
        abandon_run(connection, run_id)


def find_new_chain(connection: Connection, run_id: int) -> NewChain | None:
    """The new chain that a run begins; None: it begins none."""
    return _first(connection, select(*_COLUMNS).where(tables.new_chains.c.run_id == run_id))


def open_one(connection: Connection) -> NewChain | None:
    """The new chain whose first close is open: it waits for its approval, or is at work."""
    query = select(*_COLUMNS).join(tables.runs, tables.runs.c.run_id == tables.new_chains.c.run_id)
    return _first(connection, query.where(tables.runs.c.status == "open"))


def list_new_chains(connection: Connection) -> list[tuple[NewChain, Run]]:
    """Every new chain with its first close, newest first."""
    runs = tables.runs
    begun = select_runs().where(runs.c.run_id.in_(select(tables.new_chains.c.run_id)))
    first_closes = {run.run_id: run for run in all_runs(connection, begun)}
    rows = connection.execute(select(*_COLUMNS).order_by(tables.new_chains.c.run_id.desc()))
    return [(NewChain(**row._mapping), first_closes[row.run_id]) for row in rows]


def chain_was_ended(connection: Connection, genesis_run_id: int) -> bool:
    """Whether a chain, named by its first run, was ended by an approved new one."""
    return bool(connection.scalar(select(is_ended(literal(genesis_run_id)))))


def is_ended(genesis_run_id: ColumnElement[int]) -> ColumnElement[bool]:
    """The condition that a chain was ended by an approved new one."""
    chains, begun, previous = tables.new_chains, tables.runs.alias("begun"), tables.runs.alias("ended")
    return exists().where(
        previous.c.run_id == chains.c.previous_run_id, previous.c.genesis_run_id == genesis_run_id,
        begun.c.run_id == chains.c.run_id, begun.c.status == "certified",
    )  # fmt: skip


def table_was_replaced(connection: Connection, run: Run) -> bool:
    """Whether a new chain after a run found other rows under the keys: the run's keys say nothing of today's rows."""
    return bool(connection.scalar(_replacements(), {"run_id": run.run_id}))


@lru_cache
def _replacements() -> Select[Any]:
    """Built once, as every query that a look-up of one balance needs: building it takes as long as running it."""
    chains, runs = tables.new_chains, tables.runs
    replacing = exists().where(
        chains.c.run_id > bindparam("run_id"), ~chains.c.has_same_rows,
        runs.c.run_id == chains.c.run_id, runs.c.status != "abandoned",
    )  # fmt: skip
    return select(replacing)


def differences_of(connection: Connection, run_id: int, *, limit: int = 200) -> list[ChainDifference]:
    """What a new chain differs by, largest difference first, each with at most as many transactions."""
    stored, captured, itemised = tables.new_chain_differences, tables.captured_balances, tables.new_chain_transactions
    explained = (
        select(
            itemised.c.balance_key, *(func.sum(itemised.c[name]).label(f"explained_{name}") for name in PART_COLUMNS)
        )
        .where(itemised.c.run_id == run_id)
        .group_by(itemised.c.balance_key)
        .subquery()
    )
    moves = [stored.c[f"present_{name}"] - stored.c[f"previous_{name}"] for name in PART_COLUMNS]
    explanations = [func.coalesce(explained.c[f"explained_{name}"], 0) for name in PART_COLUMNS]
    rests = [move - explanation for move, explanation in zip(moves, explanations, strict=True)]
    weight = func.greatest(*map(func.abs, [*moves, *explanations, *rests]))
    rows = connection.execute(
        select(
            stored, captured.c.balance_id, captured.c.currency,
            *(rest.label(f"rest_{name}") for rest, name in zip(rests, PART_COLUMNS, strict=True)),
        )
        .join(captured, captured.c.balance_key == stored.c.balance_key)
        .outerjoin(explained, explained.c.balance_key == stored.c.balance_key)
        .where(stored.c.run_id == run_id)
        .order_by(weight.desc(), stored.c.balance_key)
        .limit(limit)
    ).all()  # fmt: skip
    return [
        ChainDifference(
            row.balance_id, row.currency, Parts.of_row(row, "previous_"), Parts.of_row(row, "present_"),
            Parts.of_row(row, "rest_"), _transactions_of(connection, run_id, row.balance_key, limit),
        )
        for row in rows
    ]  # fmt: skip


def difference_count(connection: Connection, run_id: int) -> int:
    """How many balances differ."""
    stored = tables.new_chain_differences
    return int(connection.scalar(select(func.count()).where(stored.c.run_id == run_id)) or 0)


def _transactions_of(connection: Connection, run_id: int, balance_key: int, limit: int) -> list[ChainTransaction]:
    itemised = tables.new_chain_transactions
    weight = func.greatest(*(func.abs(itemised.c[name]) for name in PART_COLUMNS))
    rows = connection.execute(
        select(itemised, transactions.c.transaction_id)
        .outerjoin(transactions, transactions.c.id == itemised.c.transaction_key)
        .where(itemised.c.run_id == run_id, itemised.c.balance_key == balance_key)
        .order_by(weight.desc(), itemised.c.transaction_key)
        .limit(limit)
    )
    return [
        ChainTransaction(row.transaction_id or str(row.transaction_key), row.is_added, Parts.of_row(row))
        for row in rows
    ]


def _compare_chains(connection: Connection, run: Run, parameters: dict[str, Any]) -> None:
    changed = connection.execute(statement(connection, "close.compare_chains"), parameters).one_or_none()
    if changed is not None:
        raise NotCertified(
            f"{run.name}: rows of {changed.balance_id} were changed after they were counted: counted "
            f"{changed.counted}, now {changed.rows_say}. Abandon the run and propose the new chain again"
        )


def _count_gone_keys(connection: Connection, parameters: dict[str, Any]) -> int:
    return int(connection.scalar(statement(connection, "close.count_gone_keys"), parameters) or 0)


def _count_gone_samples(connection: Connection, parameters: dict[str, Any]) -> int:
    return int(connection.scalar(statement(connection, "close.count_gone_samples"), parameters) or 0)


def _dates_that_differ(connection: Connection, parameters: dict[str, Any]) -> list[date]:
    return list(connection.scalars(statement(connection, "close.dates_that_differ"), parameters))


def _changed_dates(connection: Connection, previous: Run) -> list[date]:
    """The dates of the previous chain's closes whose rows are not those that they counted any more."""
    runs = tables.runs
    chain = select_runs().where(
        runs.c.genesis_run_id == previous.genesis_run_id, runs.c.kind == "close", runs.c.status == "certified"
    )
    changed = []
    for close in all_runs(connection, chain.order_by(runs.c.run_id)):
        then, now = digests_then_and_now(connection, close)
        if then != now:
            changed.append(close.business_date)
    return changed


def _figures_hash(connection: Connection, run_id: int) -> str:
    return digest_figures(connection, run_id)[SUBJECT]


def _required(connection: Connection, run_id: int) -> NewChain:
    chain = find_new_chain(connection, run_id)
    if chain is None:
        raise UnknownRun(f"run {run_id} begins no new chain", hint=Hint.list_runs)
    return chain


def _first(connection: Connection, query: Select[Any]) -> NewChain | None:
    row = connection.execute(query.limit(1)).one_or_none()
    return None if row is None else NewChain(**row._mapping)


def _update(connection: Connection, run_id: int, **values: Any) -> None:
    connection.execute(update(tables.new_chains).where(tables.new_chains.c.run_id == run_id).values(**values))
