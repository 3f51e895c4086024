"""Where the closes of a ledger begin: asked once, kept, and refused where it comes too late."""

from __future__ import annotations

from datetime import date
from typing import Any

import pytest

from ledger_db.close.first_close import first_date_to_close, first_posting_date, require_first_date
from ledger_db.close.opening import open_close, open_interim
from ledger_db.core.calendar import BusinessCalendar
from ledger_db.errors import (
    FirstCloseRefused,
    FirstCloseUndecided,
    Hint,
    LedgerError,
    Misused,
    NothingSelected,
)
from tests.testing.books import Books, instant, unguarded

LAST = date(2026, 3, 31)


@pytest.fixture
def old(books: Books) -> Books:
    """A ledger with a history; its first posting is of 5 January."""
    books.post("""
        recorded          effective         source  destination  amount     status
        2026-01-07 09:00  -                 @world  wallet       1.00 USD   APPLIED
        2026-01-08 09:00  2026-01-05 23:59  @world  wallet       2.00 USD   APPLIED
        2026-01-08 09:00  2026-01-02 09:00  @world  wallet       4.00 USD   REJECTED
        2026-01-08 09:00  2026-01-03 09:00  @world  wallet       4.00 USD   QUEUED
    """)
    return books


def first(books: Books, last: date = LAST, **chosen: Any) -> date | None:
    with books.engine.begin() as connection:
        return first_date_to_close(connection, calendar=BusinessCalendar(), last=last, **chosen)


def kept(books: Books) -> list[tuple[Any, ...]]:
    return books.rows(
        "SELECT first_date, choice, first_posting_date FROM ledger_eod.first_closes ORDER BY first_close_id"
    )


def refused(books: Books, kind: type[LedgerError], **chosen: Any) -> LedgerError:
    before = kept(books)
    with pytest.raises(kind) as refusal:
        first(books, **chosen)
    assert kept(books) == before
    return refusal.value


def test_a_ledger_with_a_history_is_not_closed_before_somebody_has_chosen(old: Books) -> None:
    error = refused(old, FirstCloseUndecided)
    assert str(error) == (
        "the first posting of this ledger is of 2026-01-05, and none of the 86 business dates from then to 2026-03-31 "
        "is closed. The first close holds what was posted before it, and no close can be put before it afterwards"
    )
    assert error.hint is Hint.choose_first_close


@pytest.mark.parametrize(
    ("chosen", "begins", "choice"),
    [
        ({"choice": "from-first-posting"}, date(2026, 1, 5), "from-first-posting"),
        ({"choice": "only-last"}, LAST, "only-last"),
        ({"since": date(2026, 2, 1)}, date(2026, 2, 1), "since"),
    ],
)
def test_a_choice_is_kept_for_every_later_night(old: Books, chosen: Any, begins: date, choice: str) -> None:
    assert first(old, **chosen) == begins
    assert kept(old) == [(begins, choice, date(2026, 1, 5))]
    assert first(old, date(2026, 4, 15)) == begins  # nights later: all that were missed
    assert len(kept(old)) == 1


def test_the_newest_choice_counts_until_a_date_is_closed(old: Books) -> None:
    first(old, choice="only-last")
    assert first(old, choice="from-first-posting") == date(2026, 1, 5)
    assert first(old) == date(2026, 1, 5)


def test_a_single_close_begins_as_was_chosen_or_not_at_all(old: Books) -> None:
    def asked(day: date) -> None:
        with old.engine.begin() as connection:
            require_first_date(connection, day, calendar=BusinessCalendar(), now=instant("2026-04-01 00:05"))

    with pytest.raises(FirstCloseUndecided, match="2 business dates from then to 2026-01-06"):
        asked(date(2026, 1, 6))
    asked(date(2026, 1, 5))  # what was posted before it: nothing
    asked(date(2025, 12, 1))
    first(old, since=date(2026, 2, 1))
    asked(date(2026, 2, 1))
    with pytest.raises(FirstCloseUndecided):
        asked(LAST)
    old.close_day("2026-01-08")
    asked(LAST)  # in order or not, it is not the first
    assert len(kept(old)) == 1


def test_a_choice_that_is_repeated_each_night_is_no_new_one(old: Books) -> None:
    first(old, choice="from-first-posting")
    old.close_day("2026-01-05")
    old.post("""
        recorded          effective         source  destination  amount
        2026-01-08 09:00  2026-01-01 09:00  @world  wallet       1.00 USD
    """)
    assert first(old, choice="from-first-posting") is None


def test_a_new_ledger_is_not_asked(books: Books) -> None:
    books.open("wallet")
    assert first(books) == LAST
    books.post("""
        recorded          source  destination  amount
        2026-03-31 09:00  @world  wallet       1.00 USD
    """)
    assert first(books) == LAST
    assert first(books, date(2026, 3, 30)) == date(2026, 3, 30)
    assert kept(books) == []
    refused(books, FirstCloseUndecided, last=date(2026, 4, 1))


def test_closes_that_have_begun_ask_nothing_and_miss_no_night(old: Books) -> None:
    old.close_day("2026-01-08")
    assert first(old) is None
    assert first(old, since=date(2026, 1, 8)) is None
    assert first(old, choice="only-last") is None


@pytest.mark.parametrize("certified", [True, False])
@pytest.mark.parametrize("chosen", [{"since": date(1993, 1, 1)}, {"choice": "from-first-posting"}])
def test_no_close_is_put_before_the_first(old: Books, certified: bool, chosen: Any) -> None:
    run = old.open_day("2026-01-08")
    if certified:
        old.finish(run)
    asked = chosen.get("since", "2026-01-05")
    error = refused(old, FirstCloseRefused, **chosen)
    assert str(error) == (
        "the first close of this ledger is of 2026-01-08: it holds what was posted before, and no close can be put "
        f"before it, so not from {asked} on"
    )


def test_a_first_date_that_looks_mistyped_is_confirmed(old: Books) -> None:
    assert str(refused(old, FirstCloseUndecided, since=date(1926, 1, 5))) == (
        "closes from 1926-01-05 on would begin 36,525 days before the first posting, of 2026-01-05: 36,611 dates up to "
        "2026-03-31"
    )
    assert first(old, since=date(1926, 1, 5), confirmed=True) == date(1926, 1, 5)
    assert first(old, since=date(2025, 12, 5)) == date(2025, 12, 5)  # a month before the first posting
    refused(old, FirstCloseUndecided, since=date(2025, 12, 4))


def test_a_first_date_long_before_a_ledger_without_postings_is_confirmed(books: Books) -> None:
    books.open("wallet")
    refused(books, FirstCloseUndecided, since=date(1926, 3, 31))


def test_a_posting_of_a_mistyped_year_is_confirmed(old: Books) -> None:
    old.post("""
        recorded          effective         source  destination  amount
        2026-01-08 09:00  0026-01-05 09:00  @world  wallet       1.00 USD
    """)
    error = refused(old, FirstCloseUndecided, choice="from-first-posting")
    assert str(error) == "closes from 0026-01-05 on would be 730,571 up to 2026-03-31"
    assert error.hint is Hint.confirm_first_close


def test_effective_dates_that_are_no_dates_are_left_out(old: Books) -> None:
    for effective in ("infinity", "-infinity", "0044-03-15 12:00 BC"):
        old.insert(
            source=old.id_of("@world"), destination="bln_wallet", precise_amount=100, amount=1,
            created_at="2026-01-08 09:00", effective_date=effective,
        )  # fmt: skip
    with old.engine.connect() as connection:
        assert first_posting_date(connection, BusinessCalendar()) == date(2026, 1, 5)


def test_one_of_the_ways_to_choose(old: Books) -> None:
    said = refused(old, Misused, since=date(2026, 1, 5), choice="from-first-posting")
    assert str(said) == "closes begin with 2026-01-05 or with from first posting: choose one of the two"


def test_a_ledger_without_balances_is_not_certified(books: Books) -> None:
    now = instant("2026-03-31 12:00")
    refused(books, NothingSelected)
    refused(books, NothingSelected, since=date(1926, 3, 31))
    with books.engine.begin() as connection:
        with pytest.raises(NothingSelected, match="has no balances"):
            open_close(connection, business_date=date(2026, 3, 30), calendar=BusinessCalendar(), now=now)
        with pytest.raises(NothingSelected, match="has no balances"):
            open_interim(connection, calendar=BusinessCalendar(), now=now)
    assert books.rows("SELECT count(*) FROM ledger_eod.runs") == [(0,)]
    assert books.rows("SELECT count(*) FROM ledger_eod.clusters") == [(0,)]


def test_a_ledger_whose_balances_are_all_deleted_goes_on(old: Books) -> None:
    old.close_day("2026-01-08")
    for side in ("source", "destination"):
        old.execute(f"ALTER TABLE blnk.transactions DROP CONSTRAINT fk_transactions_{side}")
    unguarded(old, "blnk.balances", "DELETE FROM blnk.balances", rows=2)
    assert old.close_day("2026-01-09").certified
