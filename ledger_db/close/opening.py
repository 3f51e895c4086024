"""Opening a run takes its cut; abandoning one frees its date.

Closes form one chain: each has the newest certified close as its base, and none is opened while an earlier one is open
or behind a certified one. Interim runs hang off that chain and nothing is based on them.
"""

from __future__ import annotations

from collections.abc import Collection
from datetime import date, datetime, timedelta
from typing import Any

from sqlalchemy import Connection, Row, and_, delete, exists, func, insert, literal, select, update

from ledger_db.books.tables import balances, transactions
from ledger_db.close import tables
from ledger_db.close.captured import capture_balances, note_new_balances, require_balances
from ledger_db.close.cluster import ensure_cluster, require_own_records, serialise_opening
from ledger_db.close.cut import BELOW_EVERY_KEY, base_parameters
from ledger_db.close.runs import (
    Kind,
    Run,
    find_run,
    first_run,
    lock_open_run,
    newest_certified_close,
    select_runs,
    unfinished_close,
)
from ledger_db.close.samples import require_same_rows
from ledger_db.core.calendar import BusinessCalendar
from ledger_db.errors import ChainDiffers, Hint, OutOfOrder, PeriodNotEnded
from ledger_db.postings.rules import statement
from ledger_db.server.catalogue import system_identifier
from ledger_db.server.connections import without_time_limit

ONE_DAY = timedelta(days=1)

#: So many rows of pending keys are stored by each close anew. Of more, only what the base did not have,
FEW_PENDING_ROWS = 100
#: while not more than so many rows are read for each of those.
MOST_ROWS_READ = 4


def dates_to_close(
    connection: Connection, *, last_ended: date, since: date | None = None, until: date | None = None
) -> list[date]:
    """The business dates without a certified close, in order, up to the last one that has ended, or up to ``until``.

    They start with the close that is open, or else follow the newest certified one; ``since`` names the first date
    where there is no close yet, and otherwise only the last ended date is due.

    Raises:
        OutOfOrder: ``since`` would leave out a date, or a date has not ended yet.
    """
    runs = tables.runs
    newest, unfinished = connection.execute(
        select(
            func.max(runs.c.business_date).filter(runs.c.status == "certified"),
            func.max(runs.c.business_date).filter(runs.c.status == "open"),
        ).where(runs.c.kind == "close")
    ).one()
    for asked in (since, until):
        if asked is not None and asked > last_ended:
            raise OutOfOrder(f"{asked} has not ended yet: the last business date that has is {last_ended}")
    last = until or last_ended
    if since is not None and since > last:
        raise OutOfOrder(f"there is nothing from {since} to {last}: the first date lies behind the last")
    if unfinished is not None:
        first = unfinished
    elif newest is not None:
        first = newest + ONE_DAY
    else:
        first = since or last
    if since is not None and since > first:
        raise OutOfOrder(f"closes follow one another: {first} comes before {since}")
    return [first + timedelta(days=days) for days in range((last - first).days + 1)]


def open_close(connection: Connection, *, business_date: date, calendar: BusinessCalendar, now: datetime) -> Run:
    """Open the close of one business date and take its cut, or return the one that is open or certified already.

    Opening is serialised by an advisory lock, so two callers get the same run. Locks no ledger row.

    Raises:
        PeriodNotEnded: the date has not ended at ``now``.
        NothingSelected: the ledger has no balances.
        OutOfOrder: another date's close is still open, or the date does not follow the newest certified one.
        ForeignRecords: transactions were copied in with another cluster's transaction ids.
        ChainDiffers: the newest close is not the sum of the rows that its chain counted.
        TableMadeAnew: keys stand for other transactions than those that the chain counted.
    """
    serialise_opening(connection)
    existing = _unabandoned_close(connection, business_date)
    if existing is not None and existing.certified:
        return existing
    require_balances(connection)
    cluster_id = come_into_cluster(connection)
    existing = _unabandoned_close(connection, business_date)
    if existing is not None:
        return existing
    closes_at = require_ended(calendar, business_date, now)
    require_in_order(connection, business_date, closes_at)
    require_whole_chain(connection)
    base = newest_certified_close(connection, not_after=closes_at)
    return insert_run(
        connection, business_date=business_date, kind="close", calendar=calendar, closes_at=closes_at,
        caught_up=business_date < calendar.last_ended(now), cluster_id=cluster_id, base=base, follows=base,
    )  # fmt: skip


def require_ended(calendar: BusinessCalendar, business_date: date, now: datetime) -> datetime:
    """The instant at which a business date closes, in UTC.

    Raises:
        PeriodNotEnded: it has not come at ``now``.
    """
    closes_at = calendar.closes_at(business_date)
    if now < closes_at:
        raise PeriodNotEnded(
            f"{business_date} has not ended: it closes at {closes_at.isoformat()}", hint=Hint.take_interim
        )
    return closes_at


def require_in_order(connection: Connection, business_date: date, closes_at: datetime) -> None:
    """Refuse a close beside an open one, behind the newest certified one, or with a gap after it.

    Raises:
        OutOfOrder: one of these.
    """
    runs = tables.runs
    closes = select_runs().where(runs.c.kind == "close")
    unfinished = unfinished_close(connection)
    if unfinished is not None:
        raise OutOfOrder(
            f"the close of {unfinished.business_date} is not certified yet: finish it before {business_date}"
        )
    newest = first_run(connection, closes.where(runs.c.status == "certified").order_by(runs.c.closes_at.desc()))
    if newest is None:
        return
    if newest.closes_at >= closes_at:
        raise OutOfOrder(
            f"{business_date} lies behind the newest certified close {newest.business_date}: closes only go forward",
            hint=Hint.ask_history,
        )
    if business_date > newest.business_date + ONE_DAY:
        raise OutOfOrder(
            f"closes follow one another: {newest.business_date + ONE_DAY} comes before {business_date}",
            hint=Hint.close_missing_dates,
        )


def require_whole_chain(connection: Connection) -> None:
    """Refuse to go on from closes that the upgrade to counting by keys could not explain.

    Raises:
        ChainDiffers: the newest close is one.
    """
    newest = newest_certified_close(connection)
    if newest is None:
        return
    differences = tables.chain_differences
    count, first_key = connection.execute(
        select(func.count(), func.min(differences.c.balance_key)).where(
            differences.c.genesis_run_id == newest.genesis_run_id
        )
    ).one()
    if count:
        raise ChainDiffers(
            f"the close of {newest.business_date} is not the sum of the rows that its chain counted: {count} balances "
            f"differ, the first with key {first_key} (ledger_eod.chain_differences lists them). A transaction was "
            "moved over the end of a closed date, or removed, before rows were counted by their keys",
            hint=Hint.begin_new_chain,
        )


def open_interim(
    connection: Connection, *, calendar: BusinessCalendar, now: datetime, business_date: date | None = None
) -> Run | None:
    """Open an interim run "as of now", or return the date's unfinished one; None when no balance lacks its row.

    A date that has ended is taken as of its ``closes_at``, with what is known now.

    Raises:
        PeriodNotEnded: the date has not begun at ``now``.
        NothingSelected: the ledger has no balances.
        OutOfOrder: a new chain of closes waits for its approval.
        ForeignRecords: transactions were copied in with another cluster's transaction ids.
        TableMadeAnew: keys stand for other transactions than those that the chain counted.
    """
    business_date = business_date or calendar.business_date_of(now)
    if calendar.opens_at(business_date) > now:
        raise PeriodNotEnded(f"{business_date} has not begun: it opens at {calendar.opens_at(business_date)}")
    serialise_opening(connection)
    require_balances(connection)
    cluster_id = come_into_cluster(connection)
    _require_no_new_chain(connection)
    runs = tables.runs
    query = select_runs().where(
        runs.c.kind == "interim", runs.c.status == "open", runs.c.business_date == business_date
    )
    unfinished = first_run(connection, query.order_by(runs.c.run_id))
    if unfinished is not None:
        return unfinished
    if not _lacks_interim_snapshots(connection, business_date):
        return None
    closes_at = min(calendar.closes_at(business_date), now)
    base = newest_certified_close(connection, not_after=closes_at)
    return insert_run(
        connection, business_date=business_date, kind="interim", calendar=calendar, closes_at=closes_at,
        caught_up=False, cluster_id=cluster_id, base=base, follows=base,
    )  # fmt: skip


def _require_no_new_chain(connection: Connection) -> None:
    """Refuse an interim run on the closes of a chain that is about to end."""
    proposed = _proposed_close(connection)
    if proposed is not None:
        raise OutOfOrder(f"a new chain begins with the close of {proposed.business_date}, which is not certified yet")


def _proposed_close(connection: Connection) -> Run | None:
    """The open close that begins a new chain."""
    runs = tables.runs
    begins = runs.c.run_id.in_(select(tables.new_chains.c.run_id))
    return first_run(connection, select_runs().where(runs.c.status == "open", begins))


def _lacks_interim_snapshots(connection: Connection, business_date: date) -> bool:
    """Whether any balance has no interim snapshot of a date; one made again under an id has that of the first."""
    snapshots, captured = tables.balance_snapshots, tables.captured_balances
    taken = exists().where(
        snapshots.c.business_date == business_date,
        snapshots.c.kind == "interim",
        snapshots.c.balance_key == balances.c.id,
    )
    made_again = exists().where(captured.c.balance_id == balances.c.balance_id, captured.c.balance_key != balances.c.id)
    lacking = select(literal(1)).select_from(balances).where(~taken, ~made_again)
    return bool(connection.scalar(select(exists(lacking))))


def abandon_run(connection: Connection, run_id: int) -> Run:
    """Give up an open run: its rows are removed, so that its date can be opened again with a new cut.

    Raises:
        RunNotOpen: it is certified; evidence stays.
        UnknownRun: there is none.
    """
    run = lock_open_run(connection, run_id)
    _remove_rows(connection, run)
    connection.execute(update(tables.runs).where(tables.runs.c.run_id == run_id).values(status="abandoned"))
    return find_run(connection, run_id)


def abandon_preparations(connection: Connection, *, but: Collection[int] = ()) -> None:
    """Give up all preparations but these. One that somebody is at work on stays for now."""
    runs = tables.runs
    left = select(runs.c.run_id).where(
        runs.c.kind == "preparation", runs.c.status == "open", runs.c.run_id.not_in(but)
    )  # fmt: skip
    without_time_limit(connection)
    for run_id in connection.scalars(left.with_for_update(skip_locked=True)).all():
        abandon_run(connection, run_id)


def _unabandoned_close(connection: Connection, business_date: date) -> Run | None:
    runs = tables.runs
    query = select_runs().where(
        runs.c.kind == "close", runs.c.status != "abandoned", runs.c.business_date == business_date
    )
    return first_run(connection, query)


def come_into_cluster(connection: Connection) -> int:
    """The cluster that this ledger is in. Open runs of another one are abandoned: their cuts mean nothing here.

    Raises:
        ForeignRecords: rows came from another cluster since this one was first seen.
        OutOfOrder: an open run of another cluster begins a new chain.
    """
    cluster_id = ensure_cluster(connection)
    require_own_records(connection)
    runs = tables.runs
    proposed = _proposed_close(connection)
    if proposed is not None and proposed.cluster_id != cluster_id:
        raise OutOfOrder(
            f"run {proposed.run_id} begins a new chain and was opened before this database was restored: abandon it, "
            "and propose it again"
        )
    left = select(runs.c.run_id).where(runs.c.status == "open", runs.c.cluster_id != cluster_id)
    for run_id in connection.scalars(left).all():
        abandon_run(connection, run_id)
    return cluster_id


def _remove_rows(connection: Connection, run: Run) -> None:
    for table in (
        tables.run_exceptions, tables.row_digests, tables.sampled_rows, tables.row_checksums, tables.activity,
        tables.run_keys, tables.run_pieces, tables.prepared_parts, tables.prepared_balances,
        tables.new_chain_differences, tables.new_chain_transactions,
    ):  # fmt: skip
        connection.execute(delete(table).where(table.c.run_id == run.run_id))
    snapshots = tables.balance_snapshots
    connection.execute(
        delete(snapshots).where(
            and_(
                snapshots.c.run_id == run.run_id,
                snapshots.c.business_date == run.business_date,
                snapshots.c.kind == run.kind,
            )
        )
    )


def insert_run(
    connection: Connection,
    *,
    business_date: date,
    kind: Kind,
    calendar: BusinessCalendar,
    closes_at: datetime,
    caught_up: bool,
    cluster_id: int,
    base: Run | None,
    follows: Run | None,
    up_to_key: int | None = None,
) -> Run:
    """Store a run with the cut of this moment: what is committed now, and nothing later, is in it.

    ``base``: the close whose figures it goes on from. ``follows``: the close where its interval begins; it is the base,
    but for the first close of a new chain. ``up_to_key``: of a preparation, which looks at no key above; else the
    highest key. The balances that it answers for are captured after the cut, so that every row in it has its balances.

    Raises:
        TableMadeAnew: keys stand for other transactions than those that the base's chain counted.
    """
    require_same_rows(connection, base)
    next_id = select(func.nextval(func.pg_get_serial_sequence("ledger_eod.runs", "run_id")))
    run_id = int(connection.execute(next_id).scalar_one())
    connection.execute(
        insert(tables.runs).values(
            run_id=run_id,
            business_date=business_date,
            kind=kind,
            time_zone=calendar.zone.key,
            cut_off=calendar.cut_off,
            opens_at=_opens_at(follows, business_date, calendar, closes_at),
            closes_at=closes_at,
            cut=func.pg_current_snapshot(),
            system_identifier=system_identifier(connection),
            cluster_id=cluster_id,
            base_run_id=None if base is None else base.run_id,
            genesis_run_id=run_id if base is None else base.genesis_run_id,
            # in the statement that takes the cut, so that both are of one instant
            max_transaction_key=func.greatest(
                BELOW_EVERY_KEY if base is None else base.max_transaction_key,
                select(func.max(transactions.c.id)).scalar_subquery() if up_to_key is None else up_to_key,
            ),
            pending_from_run_id=None if kind == "preparation" else _pending_from(connection, base),
            caught_up=caught_up,
        )
    )
    if kind == "preparation":
        note_new_balances(connection, run_id)
    else:
        capture_balances(connection, run_id)
    return find_run(connection, run_id)


def _pending_from(connection: Connection, base: Run | None) -> int | None:
    """The run whose set of pending keys those of a new run add to; None: it stores all of them, as without a base.

    So neither what a close stores nor what is read to know its pending keys is more than some times what is pending.
    """
    if base is None:
        return None
    found = _weigh_pending_keys(connection, base)
    is_whole = found.pending_count <= FEW_PENDING_ROWS or found.read_count > MOST_ROWS_READ * found.pending_count
    return None if is_whole else base.pending_from


def _weigh_pending_keys(connection: Connection, base: Run) -> Row[Any]:
    return connection.execute(
        statement(connection, "close.weigh_pending_keys"), base_parameters(connection, base)
    ).one()


def _opens_at(follows: Run | None, business_date: date, calendar: BusinessCalendar, closes_at: datetime) -> datetime:
    """Where a run's interval begins: dates share their boundary, also where zone or cut-off changed between them."""
    opens_at = min(calendar.opens_at(business_date), closes_at)
    if follows is None or follows.business_date >= business_date:
        return opens_at
    return follows.closes_at if follows.business_date == business_date - ONE_DAY else max(opens_at, follows.closes_at)
