"""Each row is counted once, by its key: edited, deleted, put back, late, too early, or on hold across closes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import time
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from sqlalchemy import text

from ledger_db.close import opening
from ledger_db.close.counting import plan_pieces
from ledger_db.close.driver import resume_run
from ledger_db.close.opening import abandon_run
from ledger_db.close.runs import Run
from ledger_db.core.calendar import BusinessCalendar
from ledger_db.errors import NotCertified, OutOfOrder
from ledger_db.settings import get_settings
from tests.testing.books import Books, major
from tests.testing.ledger_model import keys_in, pending_in
from tests.testing.oracle import interim, open_interim_at
from tests.testing.verifications import causes, verify

#: A table of one transaction, to be completed.
ONE_ROW = "recorded  effective  source  destination  amount  reference\n"


def edit(books: Books, statement: str) -> None:
    """A change of one row that the own copy of the ledger refuses, by somebody who may."""
    with books.engine.begin() as connection:
        connection.execute(text("SET LOCAL session_replication_role = replica"))
        assert connection.execute(text(statement)).rowcount == 1


def redate(books: Books, reference: str, effective: str) -> None:
    edit(
        books,
        f"UPDATE blnk.transactions SET effective_date = '{effective}' WHERE transaction_id = 'txn_{reference}'",
    )


def move(books: Books, child: str, parent: str) -> None:
    edit(
        books,
        f"UPDATE blnk.transactions SET parent_transaction = 'txn_{parent}' WHERE transaction_id = 'txn_{child}'",
    )


def archive(books: Books, reference: str) -> None:
    """Take a row out of the ledger and keep it aside."""
    books.execute("CREATE TABLE IF NOT EXISTS public.archived (LIKE blnk.transactions)")
    books.execute(
        f"INSERT INTO public.archived SELECT * FROM blnk.transactions WHERE transaction_id = 'txn_{reference}'"
    )
    edit(books, f"DELETE FROM blnk.transactions WHERE transaction_id = 'txn_{reference}'")


def put_back(books: Books, reference: str) -> None:
    """Insert an archived row again under its key; the database records it anew."""
    row = f"public.archived WHERE transaction_id = 'txn_{reference}'"
    with books.engine.begin() as connection:
        connection.execute(text("UPDATE public.archived SET recorded_xid = pg_current_xact_id()"))
        assert connection.execute(text(f"INSERT INTO blnk.transactions SELECT * FROM {row}")).rowcount == 1
        connection.execute(text(f"DELETE FROM {row}"))


def key_of(books: Books, reference: str) -> int:
    ((key,),) = books.rows(f"SELECT id FROM blnk.transactions WHERE transaction_id = 'txn_{reference}'")
    return int(key)


def named(books: Books, key_set: str, run: Run) -> dict[str, str]:
    """A run's set of keys as references, each with its business date; a row that is not there by its key."""
    names = names_of(books)
    return {names(key): str(day) for key, day in keys_in(books, key_set, run).items()}


def names_of(books: Books) -> Callable[[int], str]:
    names = dict(books.rows("SELECT id, substr(transaction_id, 5) FROM blnk.transactions"))
    return lambda key: names.get(key, f"key {key}")


def counted(books: Books, run: Run) -> dict[str, str]:
    return named(books, "counted", run)


def pending(books: Books, run: Run) -> set[str]:
    return set(map(names_of(books), pending_in(books, run)))


def released(books: Books, run: Run) -> dict[str, str]:
    return named(books, "released", run)


def waiting(books: Books, run: Run) -> set[str]:
    return set(named(books, "waiting", run))


def closed(books: Books, run: Run, *names: str) -> list[str]:
    """Balances as a run's snapshots say; a hold in brackets: ``10.00 (5.00)``. All of a currency is zero together."""
    rows = books.rows(
        "SELECT balance_id, balance, inflight_balance FROM ledger_eod.daily_balances WHERE run_id = :run",
        run=run.run_id,
    )
    assert (sum(row[1] for row in rows), sum(row[2] for row in rows)) == (0, 0)
    found = {balance: major(posted) + (f" ({major(held)})" if held else "") for balance, posted, held in rows}
    return [found[books.id_of(name)] for name in names]


def exceptions(books: Books, run: Run) -> dict[str, str]:
    """What a run itemises: the cause by reference, or by key where the row is not there. None of it is an amount."""
    rows = books.rows(
        "SELECT DISTINCT COALESCE(substr(transaction_id, 5), 'key ' || transaction_key), cause, difference, "
        "inflight_difference FROM ledger_eod.run_exceptions "
        "LEFT JOIN blnk.transactions ON transactions.id = transaction_key WHERE run_id = :run",
        run=run.run_id,
    )
    assert all((difference, inflight) == (0, 0) for _, _, difference, inflight in rows)
    return {reference: cause for reference, cause, _, _ in rows}


@contextmanager
def pieces_of(monkeypatch: pytest.MonkeyPatch, rows: int) -> Iterator[None]:
    """Runs count in pieces of so many rows."""
    with monkeypatch.context() as patched:
        patched.setenv("LEDGER_PIECE_SIZE", str(rows))
        get_settings.cache_clear()
        yield
    get_settings.cache_clear()


# A date edited over a closed boundary ---------------------------------------------------------------------------------


def test_a_date_edited_after_its_close_moves_nothing_and_is_named(books: Books) -> None:
    books.post("""
        recorded          source  destination  amount      reference
        2026-01-30 09:00  @world  wallet       100.00 USD  kept
        2026-01-30 12:00  @world  wallet        50.00 USD  later
        2026-01-31 12:00  @world  wallet         7.00 USD  earlier
    """)
    friday = books.close_day("2026-01-30")
    redate(books, "later", "2026-01-31 12:00")
    saturday = books.close_day("2026-01-31")
    redate(books, "earlier", "2026-01-30 12:00")
    sunday = books.close_day("2026-02-01")

    assert counted(books, friday) == {"kept": "2026-01-30", "later": "2026-01-30"}
    assert counted(books, saturday) == {"earlier": "2026-01-31"}
    assert counted(books, sunday) == {}
    assert [closed(books, run, "wallet", "@world") for run in (friday, saturday, sunday)] == [
        ["150.00", "-150.00"], ["157.00", "-157.00"], ["157.00", "-157.00"],
    ]  # fmt: skip
    assert books.balance("wallet", at="2026-01-31") == "150.00"
    assert books.balance("wallet", at="2026-02-01") == "157.00"
    assert causes(verify(books, "checksums").found) == {
        ("row_edited_or_removed", f"{what} on {day}")
        for what in ("raw rows", "bln_wallet", "bln_world_usd")
        for day in ("2026-01-30", "2026-01-31")
    }


def test_until_a_row_is_counted_the_present_date_holds(books: Books) -> None:
    books.post("""
        recorded          effective         source  destination  amount     reference
        2026-01-30 09:00  2026-01-30 09:00  @world  wallet       10.00 USD  kept
        2026-01-30 09:00  2026-02-04 12:00  @world  wallet        5.00 USD  drawn_back
        2026-01-30 09:00  2026-01-31 12:00  @world  wallet        2.00 USD  put_off
    """)
    friday = books.close_day("2026-01-30")
    redate(books, "drawn_back", "2026-01-29 12:00")
    redate(books, "put_off", "2026-02-01 12:00")
    saturday = books.close_day("2026-01-31")
    sunday = books.close_day("2026-02-01")

    assert (counted(books, friday), pending(books, friday)) == ({"kept": "2026-01-30"}, {"drawn_back", "put_off"})
    assert (counted(books, saturday), pending(books, saturday)) == ({"drawn_back": "2026-01-29"}, {"put_off"})
    assert (counted(books, sunday), pending(books, sunday)) == ({"put_off": "2026-02-01"}, set())
    assert [closed(books, run, "wallet") for run in (friday, saturday, sunday)] == [["10.00"], ["15.00"], ["17.00"]]
    for from_source in (False, True):
        assert [
            books.balance("wallet", at=at, from_source=from_source)
            for at in ("2026-01-30", "2026-01-31", "2026-02-01", "2026-02-02")
        ] == ["5.00", "15.00", "15.00", "17.00"]
    assert verify(books, "from-genesis").found == []


# Recorded at another time than usual ----------------------------------------------------------------------------------


def test_between_cut_off_and_cut_future_uninstalled_and_late_each_counted_once(books: Books) -> None:
    for name in ("@world", "wallet", "@slow", "slow"):
        books.open(name)
    books.insert(
        source="bln_world_usd", destination="bln_wallet", precise_amount=100, currency="USD",
        created_at="2026-01-20 09:00", recorded_xid=None, reference="before_us",
    )  # fmt: skip
    with books.engine.connect() as session, session.begin() as still_open:
        books.post_on(session, ONE_ROW + "2026-01-30 09:00  -  @slow  slow  2.00 USD  low_key")
        books.post("""
            recorded          effective         source  destination  amount     reference
            2026-01-31 00:02  -                 @world  wallet        4.00 USD  next_day
            2026-01-31 00:03  2026-01-30 23:59  @world  wallet        8.00 USD  same_day
            2026-01-31 00:04  2026-02-01 09:00  @world  wallet       16.00 USD  future
        """)
        friday = books.close_day("2026-01-30", now="2026-01-31 00:05")
        still_open.commit()
    saturday = books.close_day("2026-01-31")
    sunday = books.close_day("2026-02-01")
    monday = books.close_day("2026-02-02")

    assert counted(books, friday) == {"before_us": "2026-01-30", "same_day": "2026-01-30"}
    assert pending(books, friday) == {"next_day", "future"}
    assert counted(books, saturday) == {"low_key": "2026-01-30", "next_day": "2026-01-31"}
    assert pending(books, saturday) == {"future"}
    assert counted(books, sunday) == {"future": "2026-02-01"}
    assert (counted(books, monday), pending(books, monday)) == ({}, set())
    assert [closed(books, run, "wallet", "slow") for run in (friday, saturday, sunday, monday)] == [
        ["9.00", "0.00"], ["13.00", "2.00"], ["29.00", "2.00"], ["29.00", "2.00"],
    ]  # fmt: skip


def test_reserved_and_explicit_low_keys_are_counted_when_they_appear(books: Books) -> None:
    """Keys say nothing about when a row was recorded."""
    for name in ("@world", "wallet"):
        books.open(name)
    reserved = [key for (key,) in books.rows("SELECT nextval('blnk.transactions_id_seq') FROM generate_series(1, 2)")]
    row: dict[str, Any] = {"source": "bln_world_usd", "destination": "bln_wallet", "currency": "USD"}
    books.insert(id=2_147_483_647, precise_amount=100, created_at="2026-01-30 09:00", reference="huge", **row)
    books.post(ONE_ROW + "2026-01-30 09:00  -  @world  wallet  2.00 USD  usual")
    friday = books.close_day("2026-01-30")
    books.insert(id=reserved[0], precise_amount=400, created_at="2026-01-30 10:00", reference="reserved", **row)
    books.insert(id=-7, precise_amount=800, created_at="2026-01-31 09:00", reference="negative", **row)
    saturday = books.close_day("2026-01-31")
    books.insert(id=reserved[1], precise_amount=1600, created_at="2026-02-01 09:00", reference="reserved_too", **row)
    sunday = books.close_day("2026-02-01")

    assert counted(books, friday) == {"huge": "2026-01-30", "usual": "2026-01-30"}
    assert counted(books, saturday) == {"reserved": "2026-01-30", "negative": "2026-01-31"}
    assert counted(books, sunday) == {"reserved_too": "2026-02-01"}
    assert [closed(books, run, "wallet") for run in (friday, saturday, sunday)] == [["3.00"], ["15.00"], ["31.00"]]


def test_archived_rows_that_come_back_are_counted_once(books: Books) -> None:
    books.post("""
        recorded          effective         source  destination  amount     reference
        2026-01-30 09:00  -                 @world  wallet        1.00 USD  never_seen
        2026-01-30 09:00  -                 @world  wallet        2.00 USD  counted
        2026-01-30 09:00  -                 @world  wallet        4.00 USD  kept
    """)
    archive(books, "never_seen")
    friday = books.close_day("2026-01-30")
    archive(books, "counted")
    saturday = books.close_day("2026-01-31")
    put_back(books, "counted")
    put_back(books, "never_seen")
    sunday = books.close_day("2026-02-01")
    monday = books.close_day("2026-02-02")

    assert counted(books, friday) == {"counted": "2026-01-30", "kept": "2026-01-30"}
    assert counted(books, saturday) == {}
    assert counted(books, sunday) == {"never_seen": "2026-01-30"}
    assert counted(books, monday) == {}
    assert [closed(books, run, "wallet") for run in (friday, saturday, sunday, monday)] == [
        ["6.00"], ["6.00"], ["7.00"], ["7.00"],
    ]  # fmt: skip


def test_a_row_deleted_between_cut_and_counting_that_comes_back_is_counted(books: Books) -> None:
    """The close that saw it in its cut did not find it; no set has its key."""
    books.post("""
        recorded          source  destination  amount    reference
        2026-01-30 09:00  @world  wallet       1.00 USD  away
        2026-01-30 09:00  @world  wallet       2.00 USD  kept
    """)
    friday = books.open_day("2026-01-30")
    archive(books, "away")
    books.finish(friday)
    put_back(books, "away")
    saturday = books.close_day("2026-01-31")

    assert (counted(books, friday), pending(books, friday)) == ({"kept": "2026-01-30"}, set())
    assert counted(books, saturday) == {"away": "2026-01-30"}
    assert [closed(books, run, "wallet") for run in (friday, saturday)] == [["2.00"], ["3.00"]]


def test_a_pending_row_deleted_and_inserted_anew_and_a_counted_key_put_back(books: Books) -> None:
    books.post("""
        recorded          effective         source  destination  amount     reference
        2026-01-30 09:00  2026-01-30 09:00  @world  wallet       10.00 USD  counted
        2026-01-30 09:00  2026-02-01 09:00  @world  wallet        5.00 USD  standing
    """)
    standing = f"key {key_of(books, 'standing')}"
    friday = books.close_day("2026-01-30")
    archive(books, "standing")
    archive(books, "counted")
    saturday = books.close_day("2026-01-31")
    put_back(books, "counted")
    sunday = books.close_day("2026-02-01")
    assert pending(books, sunday) == {standing}
    assert set(exceptions(books, sunday)) == {standing}  # gone, and named each night
    put_back(books, "standing")
    monday = books.close_day("2026-02-02")

    assert counted(books, friday) == {"counted": "2026-01-30"}
    assert counted(books, saturday) == counted(books, sunday) == {}
    assert counted(books, monday) == {"standing": "2026-02-01"}
    assert pending(books, friday) == pending(books, saturday) == {"standing"}
    assert (pending(books, monday), exceptions(books, monday)) == (set(), {})
    assert [closed(books, run, "wallet") for run in (friday, saturday, sunday, monday)] == [
        ["10.00"], ["10.00"], ["10.00"], ["15.00"],
    ]  # fmt: skip


# Who is answered for --------------------------------------------------------------------------------------------------


def certified_of(books: Books, run: Run) -> tuple[int, int]:
    """How many balances a run's certificate and its totals speak of."""
    ((snapshots, totals),) = books.rows(
        "SELECT snapshot_count, (SELECT sum(balance_count) FROM ledger_eod.run_totals WHERE run_id = runs.run_id) "
        "FROM ledger_eod.runs WHERE run_id = :run",
        run=run.run_id,
    )
    return int(snapshots), int(totals)


def balances_in(books: Books, run: Run) -> list[str]:
    return [
        balance_id
        for (balance_id,) in books.rows(
            "SELECT balance_id FROM ledger_eod.daily_balances WHERE run_id = :run ORDER BY 1", run=run.run_id
        )
    ]


def test_a_lower_key_that_commits_later_and_a_deleted_balance_change_no_certified_date(books: Books) -> None:
    with books.engine.connect() as session, session.begin() as still_open:
        books.open("slow", connection=session)
        books.post("""
            recorded          source  destination  amount     reference
            2026-01-30 09:00  @world  wallet       30.00 USD  -
            2026-01-30 10:00  wallet  idle         25.00 USD  -
        """)
        friday = books.close_day("2026-01-30")
        still_open.commit()
    assert balances_in(books, friday) == ["bln_idle", "bln_wallet", "bln_world_usd"]
    assert certified_of(books, friday) == (3, 3)

    edit(books, "DELETE FROM blnk.balances WHERE balance_id = 'bln_idle'")
    month_end = books.close_day("2026-01-31")
    following = books.close_day("2026-02-01")

    assert balances_in(books, friday) == ["bln_idle", "bln_wallet", "bln_world_usd"]
    assert closed(books, friday, "idle", "wallet", "@world") == ["25.00", "5.00", "-30.00"]
    for run in (month_end, following):
        assert balances_in(books, run) == ["bln_idle", "bln_slow", "bln_wallet", "bln_world_usd"]
        assert certified_of(books, run) == (4, 4)
        assert closed(books, run, "idle", "slow", "wallet", "@world") == ["25.00", "0.00", "5.00", "-30.00"]


# Holds ----------------------------------------------------------------------------------------------------------------


HOLD = """
    recorded          effective         source  destination  amount      status    reference
    2026-01-30 12:00  2026-01-30 12:00  @world  wallet       100.00 USD  INFLIGHT  hold
"""
COMMIT = """
    recorded          effective         source  destination  amount     status   reference  parent
    2026-01-31 12:00  2026-01-31 12:00  @world  wallet       40.00 USD  APPLIED  part       hold
    2026-01-31 13:00  2026-01-31 13:00  @world  wallet       60.00 USD  VOID     rest       hold
"""


def inflight(books: Books, *instants: str, name: str = "wallet") -> list[str]:
    """What is on hold just before each instant, the same from source."""
    held = [books.inflight(name, at=at) for at in instants]
    assert [books.inflight(name, at=at, from_source=True) for at in instants] == held
    return held


def test_a_hold_and_its_releases_in_two_closes(books: Books) -> None:
    books.post(HOLD)
    friday = books.close_day("2026-01-30")
    books.post(COMMIT)
    saturday = books.close_day("2026-01-31")
    sunday = books.close_day("2026-02-01")

    assert [closed(books, run, "wallet") for run in (friday, saturday, sunday)] == [
        ["0.00 (100.00)"], ["40.00"], ["40.00"],
    ]  # fmt: skip
    assert (released(books, friday), released(books, sunday)) == ({}, {})
    assert released(books, saturday) == {"part": "2026-01-31", "rest": "2026-01-31"}
    assert waiting(books, saturday) == set()
    assert inflight(books, "2026-01-31", "2026-01-31 12:00:01", "2026-02-01") == ["100.00", "60.00", "0.00"]


def test_a_hold_and_its_releases_in_pieces_of_one_row(books: Books, monkeypatch: pytest.MonkeyPatch) -> None:
    books.post(HOLD)
    books.post(COMMIT)
    with pieces_of(monkeypatch, 1):
        saturday = books.close_day("2026-01-31")
    assert counted(books, saturday) == dict.fromkeys(("hold", "part", "rest"), "2026-01-31")
    assert released(books, saturday) == {"part": "2026-01-31", "rest": "2026-01-31"}
    assert closed(books, saturday, "wallet", "@world") == ["40.00", "-40.00"]


def test_a_child_dated_before_its_parent_releases_from_the_parents_instant(books: Books) -> None:
    books.post("""
        recorded          effective         source  destination  amount      status    reference  parent
        2026-01-30 09:00  2026-01-31 12:00  @world  wallet       100.00 USD  INFLIGHT  hold       -
        2026-01-30 09:00  2026-01-30 12:00  @world  wallet       100.00 USD  APPLIED   child      hold
    """)
    friday = books.close_day("2026-01-30")
    saturday = books.close_day("2026-01-31")
    sunday = books.close_day("2026-02-01")

    assert (counted(books, friday), pending(books, friday)) == ({"child": "2026-01-30"}, {"hold"})
    assert (released(books, friday), waiting(books, friday)) == ({}, {"child"})
    assert counted(books, saturday) == {"hold": "2026-01-31"}
    assert (released(books, saturday), waiting(books, saturday)) == ({"child": "2026-01-31"}, set())
    assert released(books, sunday) == {}
    assert [closed(books, run, "wallet") for run in (friday, saturday, sunday)] == [["100.00"]] * 3
    assert inflight(books, "2026-01-31", "2026-01-31 12:00", "2026-01-31 12:01", "2026-02-02") == ["0.00"] * 4


def test_a_parent_re_dated_before_it_is_counted_releases_for_the_later_day(books: Books) -> None:
    books.post("""
        recorded          effective         source  destination  amount      status    reference  parent
        2026-01-30 09:00  2026-02-03 12:00  @world  wallet       100.00 USD  INFLIGHT  hold       -
        2026-01-30 09:00  2026-01-31 12:00  @world  wallet       100.00 USD  VOID      child      hold
    """)
    friday = books.close_day("2026-01-30")
    saturday = books.close_day("2026-01-31")
    redate(books, "hold", "2026-01-29 12:00")
    sunday = books.close_day("2026-02-01")

    assert pending(books, friday) == {"hold", "child"}
    assert (counted(books, saturday), waiting(books, saturday)) == ({"child": "2026-01-31"}, {"child"})
    assert counted(books, sunday) == {"hold": "2026-01-29"}
    assert (released(books, sunday), waiting(books, sunday)) == ({"child": "2026-01-31"}, set())
    assert [closed(books, run, "wallet") for run in (friday, saturday, sunday)] == [["0.00"]] * 3
    assert inflight(books, "2026-01-29 12:00", "2026-01-30", "2026-01-31", "2026-02-01", "2026-02-02") == [
        "0.00", "100.00", "100.00", "0.00", "0.00",
    ]  # fmt: skip


def test_a_parent_re_dated_after_it_was_counted_is_released_by_the_close_of_its_child(books: Books) -> None:
    books.post(HOLD)
    friday = books.close_day("2026-01-30")
    redate(books, "hold", "2026-02-04 12:00")
    books.post(COMMIT)
    saturday = books.close_day("2026-01-31")
    sunday = books.close_day("2026-02-01")

    assert released(books, saturday) == {"part": "2026-01-31", "rest": "2026-01-31"}  # at most the close's own date
    assert (released(books, sunday), waiting(books, sunday)) == ({}, set())
    assert [closed(books, run, "wallet") for run in (friday, saturday, sunday)] == [
        ["0.00 (100.00)"], ["40.00"], ["40.00"],
    ]  # fmt: skip


def test_a_child_moved_to_a_second_parent_is_released_once(books: Books) -> None:
    books.post("""
        recorded          effective         source  destination  amount      status    reference  parent
        2026-01-30 09:00  2026-01-29 12:00  @world  wallet       100.00 USD  INFLIGHT  first      -
        2026-01-30 09:00  2026-02-01 12:00  @world  wallet       100.00 USD  INFLIGHT  second     -
        2026-01-30 09:00  2026-01-30 12:00  @world  wallet       100.00 USD  APPLIED   child      second
    """)
    friday = books.close_day("2026-01-30")
    move(books, "child", "first")
    saturday = books.close_day("2026-01-31")
    move(books, "child", "second")
    sunday = books.close_day("2026-02-01")

    assert counted(books, friday) == {"first": "2026-01-30", "child": "2026-01-30"}
    assert (released(books, friday), waiting(books, friday)) == ({}, {"child"})
    assert (released(books, saturday), waiting(books, saturday)) == ({"child": "2026-01-30"}, set())
    assert counted(books, sunday) == {"second": "2026-02-01"}
    assert (released(books, sunday), waiting(books, sunday)) == ({}, set())
    assert [closed(books, run, "wallet") for run in (friday, saturday, sunday)] == [
        ["100.00 (100.00)"], ["100.00"], ["100.00 (100.00)"],
    ]  # fmt: skip


# Calendars and knowledge ----------------------------------------------------------------------------------------------


def test_after_a_change_of_calendar_a_late_row_has_the_date_that_was_closed(books: Books) -> None:
    kiritimati = BusinessCalendar(ZoneInfo("Pacific/Kiritimati"))  # a date opens at 10:00 of the day before, UTC
    honolulu = BusinessCalendar(ZoneInfo("Pacific/Honolulu"), time(11))  # a date closes at 21:00 of the next day, UTC
    books.post(ONE_ROW + "2026-01-28 09:00  -  @world  wallet  1.00 USD  kept")
    for day in ("2026-01-28", "2026-01-29", "2026-01-30"):
        books.close_day(day, calendar=kiritimati)
    books.post("""
        recorded          effective                   source  destination  amount     reference
        2026-01-31 09:00  2026-01-27 09:59:59.999999  @world  wallet        2.00 USD  before
        2026-01-31 09:00  2026-01-27 10:00            @world  wallet        4.00 USD  first
        2026-01-31 09:00  2026-01-28 09:59:59.999999  @world  wallet        8.00 USD  last
        2026-01-31 09:00  2026-01-28 10:00            @world  wallet       16.00 USD  next
        2026-01-31 09:00  2026-01-30 09:59:59.999999  @world  wallet       32.00 USD  newest
        2026-01-31 09:00  2026-01-30 10:00            @world  wallet       64.00 USD  today
        2026-01-31 09:00  2026-02-01 21:00            @world  wallet      128.00 USD  tomorrow
    """)
    run = books.close_day("2026-01-31", calendar=honolulu)

    assert counted(books, run) == {
        "before": "2026-01-26", "first": "2026-01-28", "last": "2026-01-28", "next": "2026-01-29",
        "newest": "2026-01-30", "today": "2026-01-31",
    }  # fmt: skip
    assert pending(books, run) == {"tomorrow"}
    assert closed(books, run, "wallet") == ["127.00"]
    for from_source in (False, True):
        assert [
            books.balance("wallet", at=at, from_source=from_source)
            for at in ("2026-01-28 10:00", "2026-01-29 10:00", "2026-01-30 10:00", "2026-02-01 21:00")
        ] == ["15.00", "31.00", "63.00", "127.00"]


def test_after_two_changes_of_calendar_a_row_before_the_first_close_is_in_every_close(books: Books) -> None:
    """By the newest calendar it would have the date of the second close, though it counts before the first opened."""
    honolulu = BusinessCalendar(ZoneInfo("Pacific/Honolulu"), time(11))  # a date opens at 21:00, UTC
    books.post(ONE_ROW + "2026-01-29 09:00  -  @world  wallet  1.00 USD  kept")
    first = books.close_day("2026-01-28", calendar=honolulu)
    second = books.close_day("2026-01-29")
    books.post(ONE_ROW + "2026-01-30 09:00  2026-01-28 20:00  @world  wallet  2.00 USD  before")
    kolkata = BusinessCalendar(ZoneInfo("Asia/Kolkata"))  # a date opens at 18:30 of the day before, UTC
    third = books.close_day("2026-01-30", calendar=kolkata)

    assert [closed(books, run, "wallet") for run in (first, second, third)] == [["1.00"], ["1.00"], ["3.00"]]
    for from_source in (False, True):
        assert [
            books.balance("wallet", at=at, from_source=from_source)
            for at in ("2026-01-28 20:00", "2026-01-28 21:00", "2026-01-29 21:00", "2026-01-30", "2026-01-31")
        ] == ["0.00", "2.00", "3.00", "3.00", "3.00"]
    assert counted(books, third) == {"before": "2026-01-27"}


def test_booked_now_for_a_closed_date_without_a_close_since(books: Books) -> None:
    books.post(ONE_ROW + "2026-01-10 09:00  -  @world  wallet  1.00 USD  kept")
    books.close_day("2026-01-30")
    books.post(ONE_ROW + "2026-01-31 09:00  2026-01-20 00:00  @world  wallet  5.00 USD  late")

    for from_source in (False, True):
        at = {"wallet": "2026-01-25", "@world": "2026-01-31"}
        assert {
            name: books.balance(name, at=instant, from_source=from_source) for name, instant in at.items()
        } == {"wallet": "6.00", "@world": "-6.00"}  # fmt: skip
        assert books.balance("wallet", at="2026-01-20", from_source=from_source) == "1.00"
        for instant in ("2026-01-25", "2026-01-31", "2026-02-05"):
            known = books.balance("wallet", at=instant, known_at="2026-01-30", from_source=from_source)
            assert known == "1.00"


def test_known_at_a_close_and_re_dated_since_is_as_it_was_pending(books: Books) -> None:
    books.post("""
        recorded          effective         source  destination  amount    reference
        2026-01-10 09:00  -                 @world  wallet       1.00 USD  kept
        2026-01-10 09:00  2026-02-05 09:00  @world  wallet       4.00 USD  standing
    """)
    friday = books.close_day("2026-01-30")
    redate(books, "standing", "2026-01-20 09:00")

    for from_source in (False, True):

        def known(at: str, from_source: bool = from_source) -> str:
            return books.balance("wallet", at=at, known_at=friday.run_id, from_source=from_source)

        assert [known(at) for at in ("2026-01-25", "2026-01-31", "2026-01-31 00:00:01")] == ["1.00", "1.00", "5.00"]
        assert books.balance("wallet", at="2026-01-25", from_source=from_source) == "5.00"
    saturday = books.close_day("2026-01-31")
    assert counted(books, saturday) == {"standing": "2026-01-20"}
    for from_source in (False, True):
        assert books.balance("wallet", at="2026-01-25", known_at="2026-01-31", from_source=from_source) == "5.00"
        assert books.balance("wallet", at="2026-01-25", known_at="2026-01-30", from_source=from_source) == "1.00"


# Closes that meet -----------------------------------------------------------------------------------------------------


class Stopped(Exception):
    """What stops a run between two steps."""


def work_on(books: Books, run: Run, *, steps: int) -> None:
    """Work on a run until it has reported so many steps."""
    reported: list[str] = []

    def report(step: str, key: int | None) -> None:
        reported.append(step)
        if len(reported) == steps:
            raise Stopped

    with pytest.raises(Stopped):
        resume_run(books.engine, run.run_id, batch_size=1, report=report)


def test_a_close_begun_while_the_one_before_it_is_unfinished_is_refused_and_loses_nothing(
    books: Books, monkeypatch: pytest.MonkeyPatch
) -> None:
    books.post("""
        recorded          source  destination  amount    reference
        2026-01-30 09:00  @world  wallet       1.00 USD  first
        2026-01-30 10:00  @world  wallet       2.00 USD  second
        2026-01-31 10:00  @world  wallet       4.00 USD  third
    """)
    friday = books.open_day("2026-01-30")
    with pieces_of(monkeypatch, 1):
        work_on(books, friday, steps=2)
        redate(books, "second", "2026-01-31 09:00")
        books.post(ONE_ROW + "2026-01-30 11:00  -  @world  wallet  8.00 USD  fourth")
        with pytest.raises(OutOfOrder, match="the close of 2026-01-30 is not certified yet"):
            books.open_day("2026-01-31", now="2026-02-01 00:05")
        books.finish(friday)
    saturday = books.close_day("2026-01-31")

    assert (counted(books, friday) | counted(books, saturday)).keys() == {"first", "second", "third", "fourth"}
    assert counted(books, friday).keys() & counted(books, saturday).keys() == set()
    assert counted(books, friday)["first"] == counted(books, saturday)["fourth"] == "2026-01-30"
    assert closed(books, saturday, "wallet", "@world") == ["15.00", "-15.00"]


def test_an_abandoned_close_leaves_no_set_and_its_rows_are_counted_by_the_next(
    books: Books, monkeypatch: pytest.MonkeyPatch
) -> None:
    books.post("""
        recorded          source  destination  amount    reference
        2026-01-30 09:00  @world  wallet       1.00 USD  first
        2026-01-30 10:00  @world  wallet       2.00 USD  second
        2026-01-31 10:00  @world  wallet       4.00 USD  third
    """)
    abandoned = books.open_day("2026-01-30")
    with pieces_of(monkeypatch, 1):
        work_on(books, abandoned, steps=2)
    with books.engine.begin() as connection:
        abandon_run(connection, abandoned.run_id)
    for table in ("run_keys", "run_pieces", "activity", "balance_snapshots"):
        assert books.rows(f"SELECT * FROM ledger_eod.{table}") == []
    redate(books, "second", "2026-01-31 09:00")
    books.post(ONE_ROW + "2026-01-30 11:00  -  @world  wallet  8.00 USD  fourth")
    friday = books.close_day("2026-01-30")
    saturday = books.close_day("2026-01-31")

    assert counted(books, friday) == {"first": "2026-01-30", "fourth": "2026-01-30"}
    assert counted(books, saturday) == {"second": "2026-01-31", "third": "2026-01-31"}
    assert [closed(books, run, "wallet") for run in (friday, saturday)] == [["9.00"], ["15.00"]]


def test_an_interim_run_beside_a_close_adds_up_and_takes_nothing_from_it(books: Books) -> None:
    books.post(ONE_ROW + "2026-01-30 09:00  -  @world  wallet  1.00 USD  first")
    friday = books.close_day("2026-01-30")
    books.post("""
        recorded          effective         source  destination  amount    reference
        2026-01-31 09:00  -                 @world  wallet       2.00 USD  second
        2026-01-31 09:00  2026-01-30 12:00  @world  wallet       4.00 USD  late
        2026-01-31 09:00  2026-01-31 18:00  @world  wallet       8.00 USD  evening
    """)
    noon = open_interim_at(books, "2026-01-31 12:00")
    assert noon is not None
    saturday = books.open_day("2026-01-31")
    books.post(ONE_ROW + "2026-01-31 10:00  -  @world  wallet  16.00 USD  too_late")
    books.finish(saturday)
    books.finish(noon)
    sunday = books.close_day("2026-02-01")

    assert noon.base_run_id == saturday.base_run_id == friday.run_id
    assert counted(books, noon) == {"second": "2026-01-31", "late": "2026-01-30"}
    assert pending(books, noon) == {"evening"}
    assert counted(books, saturday) == {"second": "2026-01-31", "late": "2026-01-30", "evening": "2026-01-31"}
    assert counted(books, sunday) == {"too_late": "2026-01-31"}
    assert [closed(books, run, "wallet") for run in (friday, noon, saturday, sunday)] == [
        ["1.00"], ["7.00"], ["15.00"], ["31.00"],
    ]  # fmt: skip
    assert closed(books, interim(books, "2026-02-02 12:00"), "wallet") == ["31.00"]


# Rows that cannot be counted, pieces ----------------------------------------------------------------------------------


def test_a_row_that_could_not_be_counted_is_named_each_night_and_counted_once_when_mended(books: Books) -> None:
    books.post(ONE_ROW + "2026-01-30 09:00  -  @world  wallet  1.00 USD  kept")
    row: dict[str, Any] = {"source": "bln_world_usd", "destination": "bln_wallet", "created_at": "2026-01-30 10:00"}
    books.insert(reference="fraction", precise_amount="200.5", stored_too=False, **row)
    books.insert(reference="no_amount", stored_too=False, **row)
    books.insert(reference="one_sided", precise_amount=800, stored_too=False, **(row | {"source": None}))
    books.insert(reference="orphan", precise_amount=1600, parent_transaction="txn_hold", stored_too=False, **row)
    misfits = {"fraction", "no_amount", "one_sided", "orphan"}
    friday = books.close_day("2026-01-30")
    saturday = books.close_day("2026-01-31")
    for run in (friday, saturday):
        assert pending(books, run) == set(exceptions(books, run)) == misfits
        assert closed(books, run, "wallet", "@world") == ["1.00", "-1.00"]

    where = "WHERE transaction_id = 'txn_"
    edit(books, f"UPDATE blnk.transactions SET precise_amount = 200 {where}fraction'")
    edit(books, f"UPDATE blnk.transactions SET precise_amount = 400 {where}no_amount'")
    edit(books, f"UPDATE blnk.transactions SET source = 'bln_world_usd' {where}one_sided'")
    books.post("""
        recorded          source  destination  amount     status    reference
        2026-02-01 09:00  @world  wallet       16.00 USD  INFLIGHT  hold
    """)
    sunday = books.close_day("2026-02-01")
    monday = books.close_day("2026-02-02")

    assert counted(books, sunday) == dict.fromkeys(misfits, "2026-01-30") | {"hold": "2026-02-01"}
    assert released(books, sunday) == {"orphan": "2026-02-01"}
    assert (pending(books, sunday), exceptions(books, sunday)) == (set(), {})
    assert (counted(books, monday), pending(books, monday)) == ({}, set())
    assert [closed(books, run, "wallet", "@world") for run in (sunday, monday)] == [["31.00", "-31.00"]] * 2


def pieces(books: Books, run: Run) -> list[int]:
    """How many rows each piece of a run looked at."""
    return [
        looked_at
        for (looked_at,) in books.rows(
            "SELECT counted_count + settled_count + pending_count FROM ledger_eod.run_pieces "
            "WHERE run_id = :run AND work <> 'holds' ORDER BY piece",
            run=run.run_id,
        )
    ]


def test_pieces_stay_even_in_one_settlement_of_one_transaction_with_one_huge_key(
    books: Books, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Stragglers are divided at blocks of 8,192 keys."""
    for name in ("@world", "wallet"):
        books.open(name)
    settlement = (
        "INSERT INTO blnk.transactions (transaction_id, source, destination, precise_amount, currency, status, "
        "created_at) SELECT 'txn_{day}_' || number, 'bln_world_usd', 'bln_wallet', 100, 'USD', 'APPLIED', "
        "'{day} 12:00' FROM generate_series(1, 30000) AS number"
    )
    with pieces_of(monkeypatch, 9000):
        books.insert(
            id=2_147_483_647, source="bln_world_usd", destination="bln_wallet", precise_amount=100, currency="USD",
            created_at="2026-01-30 09:00", reference="huge",
        )  # fmt: skip
        books.execute(settlement.format(day="2026-01-30"))
        friday = books.close_day("2026-01-30")
        books.execute(settlement.format(day="2026-01-31"))  # all keys are below the highest one now
        saturday = books.close_day("2026-01-31")

    assert pieces(books, friday) == [7500, 7500, 7500, 7501]
    assert sum(pieces(books, saturday)) == 30_000
    assert max(pieces(books, saturday)) <= 9000 + 8192
    assert [closed(books, run, "wallet") for run in (friday, saturday)] == [["30001.00"], ["60001.00"]]


def test_thousands_of_standing_orders_are_stored_once(books: Books, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each is in a block of its own. A close stores what its base did not have, and all again when few are left."""
    monkeypatch.setattr(opening, "FEW_PENDING_ROWS", 10)
    for name in ("@world", "wallet"):
        books.open(name)
    books.execute(
        "INSERT INTO blnk.transactions (id, transaction_id, source, destination, precise_amount, currency, status, "
        "created_at, effective_date) OVERRIDING SYSTEM VALUE SELECT 8192 * number, 'txn_order_' || number, "
        "'bln_world_usd', 'bln_wallet', 100, 'USD', 'APPLIED', '2026-01-01 09:00', "
        "timestamp '2026-01-02 09:00' + make_interval(days => LEAST(number, 18)) FROM generate_series(1, 40) AS number"
    )
    stored, wholes = [], []
    for day in range(1, 24):
        books.execute("SELECT setval(pg_get_serial_sequence('blnk.transactions', 'id'), 8192 * (50 + :day))", day=day)
        later = f"2026-01-20 {day:02}:00"
        books.post(f"""
            recorded          effective         source  destination  amount    reference
            2026-01-{day:02} 09:00  {max(later, f"2026-01-{day:02} 09:00")}  @world  wallet  1.00 USD  later-{day}
            2026-01-{day:02} 10:00  2026-01-{day:02} 10:00  @world  wallet  1.00 USD  now-{day}
        """)
        run = books.close_day(f"2026-01-{day:02}")
        due = 40 if day >= 20 else max(0, day - 2)
        orders = {f"order_{number}" for number in range(due + 1, 41)}
        laters = {f"later-{number}" for number in range(1, day + 1)} if day < 20 else set()
        assert pending(books, run) == orders | laters
        assert closed(books, run, "wallet") == [f"{day + due + (day if day >= 20 else 0)}.00"]
        stored.append(len(named(books, "pending", run)))
        wholes.append(run.stores_all_pending)
    assert (stored[0], set(stored[1:19]), set(stored[19:])) == (41, {1}, {0})
    assert (wholes[0], set(wholes[1:20]), set(wholes[20:])) == (True, {False}, {True})


def test_blocks_that_are_counted_night_by_night_are_stored_whole_again(
    books: Books, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Reading the difference costs more each night, as every block has rows that became due."""
    monkeypatch.setattr(opening, "FEW_PENDING_ROWS", 0)
    for name in ("@world", "wallet"):
        books.open(name)
    books.execute(
        "INSERT INTO blnk.transactions (transaction_id, source, destination, precise_amount, currency, status, "
        "created_at, effective_date) SELECT 'txn_order_' || number, 'bln_world_usd', 'bln_wallet', 100, 'USD', "
        "'APPLIED', '2026-01-01 09:00', timestamp '2026-01-02 09:00' + make_interval(days => number) "
        "FROM generate_series(1, 40) AS number"
    )
    runs = [books.close_day(f"2026-01-{day:02}") for day in range(1, 14)]
    assert [number for number, run in enumerate(runs) if run.stores_all_pending] == [0, 6, 11]
    assert [len(named(books, "pending", run)) for run in runs[:8]] == [40, 0, 0, 0, 0, 0, 35, 0]
    assert pending(books, runs[-1]) == {f"order_{number}" for number in range(12, 41)}


def test_a_key_that_another_row_has_after_its_own_was_itemised_as_gone(
    books: Books, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the first close sampled of it is not compared any more."""
    monkeypatch.setattr(opening, "FEW_PENDING_ROWS", -1)
    for name in ("@world", "wallet"):
        books.open(name)
    books.post("""
        recorded          effective         source  destination  amount    reference
        2026-01-29 09:00  2026-02-09 09:00  @world  wallet       5.00 USD  order
        2026-01-29 09:00  2026-02-09 09:00  @world  wallet       6.00 USD  stays
        2026-01-29 10:00  2026-01-29 10:00  @world  wallet       7.00 USD  now
    """)
    thursday, key = books.close_day("2026-01-29"), key_of(books, "order")
    archive(books, "order")
    friday = books.close_day("2026-01-30")
    assert (thursday.stores_all_pending, friday.stores_all_pending) == (True, False)
    assert pending(books, friday) == {f"key {key}", "stays"}
    books.insert(
        id=key, source="bln_world_usd", destination="bln_wallet", precise_amount=100, currency="USD",
        created_at="2026-01-31 09:00", reference="other",
    )  # fmt: skip
    saturday = books.close_day("2026-01-31")
    assert set(counted(books, saturday)) == {"other"}
    assert pending(books, saturday) == {"stays"}
    assert closed(books, saturday, "wallet") == ["8.00"]


@pytest.mark.parametrize("few_rows", [-1, 100])
def test_a_piece_that_is_lost_certifies_nothing(books: Books, monkeypatch: pytest.MonkeyPatch, few_rows: int) -> None:
    """Whether the run stores all that it leaves pending, or only what its base did not have."""
    monkeypatch.setattr(opening, "FEW_PENDING_ROWS", few_rows)
    for name in ("@world", "wallet"):
        books.open(name)
    books.post("""
        recorded          effective         source  destination  amount    reference
        2026-01-29 09:00  2026-01-30 09:00  @world  wallet       5.00 USD  due
        2026-01-29 09:00  2026-02-09 09:00  @world  wallet       6.00 USD  later
    """)
    books.close_day("2026-01-29")
    friday = books.open_day("2026-01-30")
    assert friday.stores_all_pending == (few_rows > 0)
    with books.engine.begin() as connection:
        plan_pieces(connection, friday.run_id, piece_size=10)
    books.execute("DELETE FROM ledger_eod.run_pieces WHERE run_id = :run AND work = 'older'", run=friday.run_id)
    with pytest.raises(NotCertified, match=r"keys were pending and are in no piece, the first in keys \{\[1,3\)\}"):
        resume_run(books.engine, friday.run_id)
