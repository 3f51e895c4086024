"""Runs: opening one takes its cut; from then on what belongs to it is a pure function of each ledger row.

Closes form one chain: each has the newest certified close as its base, and none is opened while an earlier one is
open or behind a certified one. Interim runs hang off that chain and nothing is based on them.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from typing import Any, Literal
from zoneinfo import ZoneInfo

from sqlalchemy import Connection, Engine, RowMapping, text
from sqlalchemy.exc import DBAPIError

from ledger_db.business_calendar import BusinessCalendar
from ledger_db.errors import ForeignRecords, OutOfOrder, PeriodNotEnded, RunNotOpen, UnknownRun
from ledger_db.restored_copy import first_foreign_record, forget_recorded, system_identifier

Kind = Literal["close", "interim"]

#: Late arrivals older than this many days before the first close are dated on the first day of that window.
LATE_WINDOW_DAYS = 3650

COLUMNS = """
    run_id, business_date, kind, status, time_zone, cut_off, opens_at, closes_at, cut, system_identifier, base_run_id,
    genesis_run_id, max_balance_key, caught_up, opened_at, collected_at, certified_at, snapshot_count, checksum, refusal
"""


@dataclass(frozen=True)
class Run:
    """One execution for one business date and kind: its interval ``[opens_at, closes_at)`` in UTC and its cut."""

    run_id: int
    business_date: date
    kind: Kind
    status: Literal["open", "certified", "abandoned"]
    time_zone: str
    cut_off: time
    opens_at: datetime
    closes_at: datetime
    cut: str
    system_identifier: str
    base_run_id: int | None
    genesis_run_id: int
    max_balance_key: int
    caught_up: bool
    opened_at: datetime
    collected_at: datetime | None
    certified_at: datetime | None
    snapshot_count: int | None
    checksum: str | None
    refusal: str | None

    @property
    def certified(self) -> bool:
        """Whether the figures are proved and frozen."""
        return self.status == "certified"

    @property
    def name(self) -> str:
        """How logs and messages call it."""
        return f"{self.kind} {self.business_date} (run {self.run_id})"


@dataclass(frozen=True)
class RunTotals:
    """What a certified run's snapshots add up to in one currency; minor units, credit and debit both positive."""

    currency: str
    balance_count: int
    credit_balance: int
    debit_balance: int
    inflight_credit_balance: int
    inflight_debit_balance: int
    itemised_difference: int
    itemised_inflight_difference: int

    @property
    def difference(self) -> int:
        """Credit minus debit: zero in books that balance, else what the itemised exceptions explain."""
        return self.credit_balance - self.debit_balance


@dataclass(frozen=True)
class RunException:
    """A transaction that does not cancel out within one currency, or whose amount cannot be counted."""

    transaction_id: str
    currency: str
    cause: str
    difference: int
    inflight_difference: int


def whole(value: Decimal | int | None) -> int:
    """A sum of minor units as an exact integer.

    Raises:
        ArithmeticError: the value has a fraction, which the posting rules rule out.
    """
    number = int(value or 0)
    if number != (value or 0):
        raise ArithmeticError(f"{value} is not a whole number of minor units")
    return number


def _run(row: RowMapping) -> Run:
    return Run(**row)


def find_run(connection: Connection, run_id: int) -> Run:
    """One run by its id.

    Raises:
        UnknownRun: there is none.
    """
    return _find_run(connection, run_id, "")


def _find_run(connection: Connection, run_id: int, locking: Literal["", "FOR SHARE", "FOR UPDATE"]) -> Run:
    row = connection.execute(
        text(f"SELECT {COLUMNS} FROM ledger_eod.runs WHERE run_id = :run_id {locking}"),  # noqa: S608 - constants
        {"run_id": run_id},
    ).mappings().one_or_none()  # fmt: skip
    if row is None:
        raise UnknownRun(f"there is no run {run_id}; ledger-eod runs lists them")
    return _run(row)


def list_runs(connection: Connection, *, limit: int = 50, kind: Kind | None = None) -> list[Run]:
    """The newest runs, newest first."""
    rows = connection.execute(
        text(
            f"SELECT {COLUMNS} FROM ledger_eod.runs "  # noqa: S608 - constant columns
            "WHERE CAST(:kind AS ledger_eod.run_kind) IS NULL OR kind = CAST(:kind AS ledger_eod.run_kind) "
            "ORDER BY run_id DESC LIMIT :limit"
        ),
        {"kind": kind, "limit": limit},
    ).mappings()  # fmt: skip
    return [_run(row) for row in rows]


def interim_runs_left_open(connection: Connection, *, before: date) -> list[Run]:
    """The open interim runs of dates before one, oldest first: unlike a close, no later call resumes them by itself."""
    rows = connection.execute(
        text(
            f"SELECT {COLUMNS} FROM ledger_eod.runs "  # noqa: S608 - constant columns
            "WHERE kind = 'interim' AND status = 'open' AND business_date < :before ORDER BY run_id"
        ),
        {"before": before},
    ).mappings()
    return [_run(row) for row in rows]


def newest_certified_close(
    connection: Connection, *, not_after: datetime | None = None, up_to_run_id: int | None = None
) -> Run | None:
    """The newest certified close of the current chain, or the newest that ends at or before an instant.

    A chain starts anew when the database was restored as a copy; the current one is that of the newest close.
    """
    row = connection.execute(
        text(
            f"SELECT {COLUMNS} FROM ledger_eod.runs "  # noqa: S608 - constant columns
            "WHERE kind = 'close' AND status = 'certified' "
            "AND (CAST(:not_after AS timestamptz) IS NULL OR closes_at <= CAST(:not_after AS timestamptz)) "
            "AND (CAST(:up_to AS bigint) IS NULL OR run_id <= CAST(:up_to AS bigint)) "
            "AND genesis_run_id = (SELECT genesis_run_id FROM ledger_eod.runs WHERE kind = 'close' "
            "AND status = 'certified' AND (CAST(:up_to AS bigint) IS NULL OR run_id <= CAST(:up_to AS bigint)) "
            "ORDER BY run_id DESC LIMIT 1) "
            "ORDER BY closes_at DESC LIMIT 1"
        ),
        {"not_after": not_after, "up_to": up_to_run_id},
    ).mappings().one_or_none()  # fmt: skip
    return None if row is None else _run(row)


def certified_close_of(connection: Connection, business_date: date) -> Run:
    """The certified close of one business date.

    Raises:
        UnknownRun: the date has none.
    """
    row = connection.execute(
        text(
            f"SELECT {COLUMNS} FROM ledger_eod.runs "  # noqa: S608 - constant columns
            "WHERE kind = 'close' AND status = 'certified' AND business_date = :business_date"
        ),
        {"business_date": business_date},
    ).mappings().one_or_none()  # fmt: skip
    if row is None:
        raise UnknownRun(f"{business_date} has no certified close; ledger-eod runs lists the dates that have")
    return _run(row)


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
        return _run(unfinished)
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


def lock_open_run(connection: Connection, run_id: int, *, shared: bool = False) -> Run:
    """The run, kept open until the transaction ends: against certification when shared, against batches too if not.

    Raises:
        RunNotOpen: it is certified or abandoned.
        UnknownRun: there is none.
    """
    run = _find_run(connection, run_id, "FOR SHARE" if shared else "FOR UPDATE")
    if run.status != "open":
        raise RunNotOpen(f"{run.name} is {run.status}: it takes no more rows")
    return run


@contextmanager
def hold_run(engine: Engine, run_id: int) -> Iterator[bool]:
    """Hold a run for as long as the block lasts; yields False at once when another session holds it.

    The hold is a session's advisory lock: it ends with the session, however the process ends. It spares work and
    says who is first; that each row is written once is the unique key's doing.
    """
    connection = engine.connect().execution_options(isolation_level="AUTOCOMMIT")
    try:
        held = bool(
            connection.scalar(text("SELECT pg_try_advisory_lock(hashtext('ledger-eod run'), :key)"), {"key": run_id})
        )
        yield held
    finally:
        with suppress(DBAPIError):  # a session that is gone holds nothing; one that ends lets go only a moment later
            connection.execute(text("SELECT pg_advisory_unlock_all()"))
        connection.invalidate()
        connection.close()


def totals_of(connection: Connection, run_id: int) -> list[RunTotals]:
    """What a certified run adds up to, by currency."""
    rows = connection.execute(
        text(
            "SELECT currency, balance_count, credit_balance, debit_balance, inflight_credit_balance, "
            "inflight_debit_balance, itemised_difference, itemised_inflight_difference "
            "FROM ledger_eod.run_totals WHERE run_id = :run_id ORDER BY currency"
        ),
        {"run_id": run_id},
    ).mappings()
    return [RunTotals(**whole_amounts(row, other=("currency",))) for row in rows]


def exceptions_of(connection: Connection, run_id: int, *, limit: int = 200) -> list[RunException]:
    """The transactions a run itemised: those it could not count first, then by difference, largest first."""
    rows = connection.execute(
        text(
            "SELECT transaction_id, e.currency, e.cause, e.difference, e.inflight_difference "
            "FROM ledger_eod.run_exceptions AS e JOIN blnk.transactions ON transactions.id = e.transaction_key "
            "WHERE run_id = :run_id ORDER BY e.difference = 0 AND e.inflight_difference = 0 DESC, "
            "abs(e.difference) DESC, transaction_key, e.currency LIMIT :limit"
        ),
        {"run_id": run_id, "limit": limit},
    ).mappings()
    return [RunException(**whole_amounts(row, other=("transaction_id", "currency", "cause"))) for row in rows]


def boundaries_of(connection: Connection, run: Run) -> list[tuple[date, datetime]]:
    """The business dates a run's activity may fall on, each with the instant it opens at, ascending.

    Where a date was closed before, the boundaries stored then count, not what today's settings would make of them; no
    later run changes the answer. A run without base has nothing to be late for: all of its activity is on its own date.
    """
    if run.base_run_id is None:
        return [(run.business_date, run.opens_at)]
    closes = connection.execute(
        text(
            "SELECT business_date, opens_at, closes_at FROM ledger_eod.runs "
            "WHERE kind = 'close' AND status = 'certified' AND genesis_run_id = :genesis AND run_id < :run_id"
        ),
        {"genesis": run.genesis_run_id, "run_id": run.run_id},
    ).all()
    stored = {row.business_date: row.opens_at for row in closes}
    stored |= {row.business_date + timedelta(days=1): row.closes_at for row in closes}
    first = min(stored) - timedelta(days=LATE_WINDOW_DAYS)
    calendar = BusinessCalendar(zone=ZoneInfo(run.time_zone), cut_off=run.cut_off)
    # on beyond the base: an interim run of a date that is closed has activity after that close, which is not late
    last = max(run.business_date, find_run(connection, run.base_run_id).business_date + timedelta(days=1))
    return _between_stored(calendar.boundaries(first, last), stored)


def _between_stored(computed: list[tuple[date, datetime]], stored: dict[date, datetime]) -> list[tuple[date, datetime]]:
    """Boundaries in order: after a change of zone or cut-off a computed one may lie beyond a stored neighbour."""
    rising: list[tuple[date, datetime]] = []
    for day, opens_at in computed:
        floor = rising[-1][1] if rising else opens_at
        rising.append((day, stored.get(day, max(opens_at, floor))))
    ordered = rising[-1:]
    for day, opens_at in reversed(rising[:-1]):
        ordered.append((day, min(opens_at, ordered[-1][1])))
    return ordered[::-1]


def exception_counts(connection: Connection, run_id: int) -> dict[str, int]:
    """How many transactions a run itemised, by cause, most first."""
    rows = connection.execute(
        text(
            "SELECT cause, count(DISTINCT transaction_key) FROM ledger_eod.run_exceptions WHERE run_id = :run_id "
            "GROUP BY cause ORDER BY 2 DESC, 1"
        ),
        {"run_id": run_id},
    )
    return dict(row.tuple() for row in rows)


def whole_amounts(row: RowMapping, *, other: tuple[str, ...]) -> dict[str, Any]:
    """A row's columns by name, its amounts and counts as integers; ``other``: the columns that are neither."""
    return {name: value if name in other else whole(value) for name, value in row.items()}


def wait_for_the_disk(connection: Connection) -> None:
    """Make this transaction's commit durable also where a role's default is not to wait: it promises something."""
    connection.execute(
        text("SELECT set_config('synchronous_commit', 'on', true) WHERE current_setting('synchronous_commit') = 'off'")
    )


def _serialise_opening(connection: Connection) -> None:
    wait_for_the_disk(connection)
    connection.execute(text("SELECT pg_advisory_xact_lock(hashtext('ledger-eod open run'))"))


def _unabandoned_close(connection: Connection, business_date: date) -> Run | None:
    row = connection.execute(
        text(
            f"SELECT {COLUMNS} FROM ledger_eod.runs "  # noqa: S608 - constant columns
            "WHERE kind = 'close' AND status <> 'abandoned' AND business_date = :business_date"
        ),
        {"business_date": business_date},
    ).mappings().one_or_none()  # fmt: skip
    return None if row is None else _run(row)


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
