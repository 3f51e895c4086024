"""Opening a run takes its cut; abandoning one gives its date free.

Closes form one chain: each has the newest certified close as its base, and none is opened while an earlier one is open
or behind a certified one. Interim runs hang off that chain and nothing is based on them.
"""

from __future__ import annotations

from datetime import date, datetime, timedelta

from sqlalchemy import Connection, text

from ledger_db.close.cluster import first_foreign_record, forget_recorded
from ledger_db.close.runs import COLUMNS, Kind, Run, find_run, lock_open_run, newest_certified_close
from ledger_db.core.calendar import BusinessCalendar
from ledger_db.errors import ForeignRecords, OutOfOrder, PeriodNotEnded
from ledger_db.server.catalogue import system_identifier
from ledger_db.server.connections import require_durable_commit
from ledger_db.server.holds import take_turns


def dates_to_close(
    connection: Connection, *, last_ended: date, since: date | None = None, until: date | None = None
) -> list[date]:
    """The business dates without a certified close, in order, up to the last one that has ended, or up to ``until``.

    They start with the close that is open, or else follow the newest certified one; ``since`` names the first date
    where there is no close yet, and otherwise only the last ended date is due.

    Raises:
        OutOfOrder: ``since`` would leave out a date, or a date has not ended yet.
    """
    newest, unfinished = connection.execute(
        text(
            "SELECT max(business_date) FILTER (WHERE status = 'certified'), "
            "max(business_date) FILTER (WHERE status = 'open') FROM ledger_eod.runs WHERE kind = 'close'"
        )
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
        first = newest + timedelta(days=1)
    else:
        first = since or last
    if since is not None and since > first:
        raise OutOfOrder(f"closes follow one another: {first} comes before {since}")
    return [first + timedelta(days=days) for days in range((last - first).days + 1)]


def open_close(connection: Connection, *, business_date: date, calendar: BusinessCalendar, now: datetime) -> Run:
    """Open the close of one business date and take its cut, or return the one that is open or certified already.

    Reads and writes ``runs`` only; opening is serialised by an advisory lock, so two callers get the same run.

    Raises:
        PeriodNotEnded: the date has not ended at ``now``.
        OutOfOrder: another date's close is still open, or the date does not follow the newest certified one.
        ForeignRecords: transactions were copied in with another cluster's transaction ids.
    """
    _serialise_opening(connection)
    existing = _unabandoned_close(connection, business_date)
    if existing is not None and existing.certified:
        return existing
    if _start_anew_when_restored(connection):
        existing = None
    if existing is not None:
        return existing
    closes_at = calendar.closes_at(business_date)
    if now < closes_at:
        raise PeriodNotEnded(
            f"{business_date} has not ended: it closes at {closes_at.isoformat()}; take an interim snapshot meanwhile"
        )
    unfinished = connection.execute(
        text("SELECT business_date FROM ledger_eod.runs WHERE kind = 'close' AND status = 'open'")
    ).scalar_one_or_none()
    if unfinished is not None:
        raise OutOfOrder(f"the close of {unfinished} is not certified yet: finish it before {business_date}")
    newest = connection.execute(
        text(
            "SELECT business_date, closes_at FROM ledger_eod.runs WHERE kind = 'close' AND status = 'certified' "
            "ORDER BY closes_at DESC LIMIT 1"
        )
    ).one_or_none()
    if newest is not None and newest.closes_at >= closes_at:
        raise OutOfOrder(
            f"{business_date} lies behind the newest certified close {newest.business_date}: closes only go forward; "
            "balance-at answers for any instant, and an interim run can snapshot the date"
        )
    if newest is not None and business_date > newest.business_date + timedelta(days=1):
        raise OutOfOrder(
            f"closes follow one another: {newest.business_date + timedelta(days=1)} comes before {business_date}; "
            "ledger-eod close closes all that are missing, in order"
        )
    return _insert_run(
        connection, business_date=business_date, kind="close", calendar=calendar, closes_at=closes_at,
        caught_up=business_date < calendar.last_ended(now),
    )  # fmt: skip


def open_interim(
    connection: Connection, *, calendar: BusinessCalendar, now: datetime, business_date: date | None = None
) -> Run | None:
    """Open an interim run "as of now", or return the date's unfinished one; None when no balance lacks its row.

    A date that has ended is taken as of its ``closes_at``, with what is known now.

    Raises:
        PeriodNotEnded: the date has not begun at ``now``.
        ForeignRecords: transactions were copied in with another cluster's transaction ids.
    """
    business_date = business_date or calendar.business_date_of(now)
    if calendar.opens_at(business_date) > now:
        raise PeriodNotEnded(f"{business_date} has not begun: it opens at {calendar.opens_at(business_date)}")
    _serialise_opening(connection)
    _start_anew_when_restored(connection)
    unfinished = connection.execute(
        text(
            f"SELECT {COLUMNS} FROM ledger_eod.runs "  # noqa: S608 - constant columns
            "WHERE kind = 'interim' AND status = 'open' AND business_date = :business_date ORDER BY run_id LIMIT 1"
        ),
        {"business_date": business_date},
    ).mappings().one_or_none()  # fmt: skip
    if unfinished is not None:
        return Run(**unfinished)
    lacking = connection.scalar(
        text(
            "SELECT EXISTS (SELECT FROM blnk.balances WHERE NOT EXISTS (SELECT FROM ledger_eod.balance_snapshots AS s "
            "WHERE s.business_date = :business_date AND s.kind = 'interim' AND s.balance_key = balances.id))"
        ),
        {"business_date": business_date},
    )
    if not lacking:
        return None
    return _insert_run(
        connection, business_date=business_date, kind="interim", calendar=calendar,
        closes_at=min(calendar.closes_at(business_date), now), caught_up=False,
    )  # fmt: skip


def abandon_run(connection: Connection, run_id: int) -> Run:
    """Give up an open run: its rows are removed, so that its date can be opened anew with a new cut.

    Raises:
        RunNotOpen: it is certified; evidence stays.
    """
    run = lock_open_run(connection, run_id)
    _remove_rows(connection, run)
    connection.execute(
        text("UPDATE ledger_eod.runs SET status = 'abandoned' WHERE run_id = :run_id"), {"run_id": run_id}
    )
    return find_run(connection, run_id)


def _serialise_opening(connection: Connection) -> None:
    require_durable_commit(connection)
    take_turns(connection, "open run")


def _unabandoned_close(connection: Connection, business_date: date) -> Run | None:
    row = connection.execute(
        text(
            f"SELECT {COLUMNS} FROM ledger_eod.runs "  # noqa: S608 - constant columns
            "WHERE kind = 'close' AND status <> 'abandoned' AND business_date = :business_date"
        ),
        {"business_date": business_date},
    ).mappings().one_or_none()  # fmt: skip
    return None if row is None else Run(**row)


def _start_anew_when_restored(connection: Connection) -> bool:
    """Notice transaction ids of another cluster, where they start over, and forget them; whether that was needed.

    Open runs are given up then: their cuts belong to the other cluster.
    """
    newest = connection.scalar(text("SELECT system_identifier FROM ledger_eod.runs ORDER BY run_id DESC LIMIT 1"))
    if newest is None or newest == system_identifier(connection):
        foreign = first_foreign_record(connection)
        if foreign is None:
            return False
        if newest is not None:
            raise ForeignRecords(
                f"transaction {foreign.transaction_id} says it was recorded by database transaction "
                f"{foreign.recorded_xid}, which this cluster has not reached: rows were copied here with that column. "
                "Set recorded_xid of blnk.transactions to its default where it is not below "
                f"{foreign.next_xid}; the rows are late arrivals then"
            )
    forget_recorded(connection)
    for run_id in connection.scalars(text("SELECT run_id FROM ledger_eod.runs WHERE status = 'open'")).all():
        abandon_run(connection, run_id)
    return True


def _remove_rows(connection: Connection, run: Run) -> None:
    for table in ("run_exceptions", "row_checksums", "activity"):
        connection.execute(
            text(f"DELETE FROM ledger_eod.{table} WHERE run_id = :run_id"),  # noqa: S608 - constants
            {"run_id": run.run_id},
        )
    connection.execute(
        text(
            "DELETE FROM ledger_eod.balance_snapshots WHERE run_id = :run_id AND business_date = :business_date "
            "AND kind = CAST(:kind AS ledger_eod.run_kind)"
        ),
        {"run_id": run.run_id, "business_date": run.business_date, "kind": run.kind},
    )


def _insert_run(
    connection: Connection,
    *,
    business_date: date,
    kind: Kind,
    calendar: BusinessCalendar,
    closes_at: datetime,
    caught_up: bool,
) -> Run:
    """Store a run with the cut of this moment: what is committed now, and nothing later, is in it."""
    base = newest_certified_close(connection, not_after=closes_at)
    identifier = system_identifier(connection)
    if base is not None and base.system_identifier != identifier:
        base = None  # its cut says nothing about this cluster's transaction ids: prove anew from the first posting
    opens_at = min(calendar.opens_at(business_date), closes_at)
    if base is not None and base.business_date < business_date:
        # dates share their boundary, also where zone or cut-off changed between them
        follows = base.business_date == business_date - timedelta(days=1)
        opens_at = base.closes_at if follows else max(opens_at, base.closes_at)
    run_id = connection.execute(
        text(
            """
            INSERT INTO ledger_eod.runs (
                run_id, business_date, kind, time_zone, cut_off, opens_at, closes_at, cut, system_identifier,
                base_run_id, genesis_run_id, max_balance_key, caught_up
            )
            SELECT
                run_id, :business_date, CAST(:kind AS ledger_eod.run_kind), :time_zone, :cut_off, :opens_at, :closes_at,
                pg_current_snapshot(), :system_identifier, :base_run_id, COALESCE(:genesis_run_id, run_id),
                (SELECT COALESCE(max(id), 0) FROM blnk.balances), :caught_up
            FROM (SELECT nextval(pg_get_serial_sequence('ledger_eod.runs', 'run_id')) AS run_id) AS numbered
            RETURNING run_id
            """
        ),
        {
            "business_date": business_date,
            "kind": kind,
            "time_zone": calendar.zone.key,
            "cut_off": calendar.cut_off,
            "opens_at": opens_at,
            "closes_at": closes_at,
            "system_identifier": identifier,
            "base_run_id": base.run_id if base else None,
            "genesis_run_id": base.genesis_run_id if base else None,
            "caught_up": caught_up,
        },
    ).scalar_one()
    return find_run(connection, run_id)
