"""The table of transactions made anew without its ids: nothing is counted again, and the next run says why."""

from __future__ import annotations

import pytest

from ledger_db.close.runs import Run
from ledger_db.errors import TableMadeAnew
from tests.testing.books import Books, Ledger
from tests.testing.oracle import assert_proved, open_interim_at, snapshots_of
from tests.testing.remade import make_anew, put_back
from tests.testing.verifications import verify


@pytest.fixture
def closed(ledger: Ledger) -> Books:
    """Two closed days: some rows counted, one pending."""
    books = Books(ledger)
    books.post("""
        recorded          effective         source  destination  amount     reference
        2026-01-30 09:00  -                 @world  wallet       10.00 USD  first
        2026-01-30 09:01  -                 @world  wallet        2.50 USD  second
        2026-01-30 09:02  -                 wallet  shop          1.00 USD  third
        2026-01-30 09:03  2026-02-03 09:00  wallet  shop          0.07 USD  later
    """)
    books.close_day("2026-01-30")
    return books


def figures(books: Books, run: Run) -> dict[str, tuple[int, int]]:
    """Credits and debits of a run's snapshots."""
    with books.engine.connect() as connection:
        return {balance: (found.credit, found.debit) for balance, found in snapshots_of(connection, run).items()}


def test_a_table_made_anew_with_new_ids_is_refused_and_goes_on_once_it_has_its_ids(closed: Books) -> None:
    before = closed.rows("SELECT count(*), max(run_id) FROM ledger_eod.runs")
    make_anew(closed, order="id")
    with pytest.raises(TableMadeAnew) as refused:
        closed.close_day("2026-01-31")
    assert str(refused.value) == (
        "of the 2 rows of blnk.transactions that were counted last and are compared, 2 are gone: the table was made "
        "anew without its ids, and its rows would be counted again. Restore it with the ids it had"
    )
    with pytest.raises(TableMadeAnew):
        open_interim_at(closed, "2026-01-31 12:00")
    with pytest.raises(TableMadeAnew):
        verify(closed, "since-close")
    assert closed.rows("SELECT count(*), max(run_id) FROM ledger_eod.runs") == before
    put_back(closed)
    for day in ("2026-01-31", "2026-02-01", "2026-02-02", "2026-02-03"):
        run = closed.close_day(day)
        assert_proved(closed, run)
    assert closed.balance("wallet", at="2026-02-04") == "11.43"


def test_a_table_made_anew_in_another_order_is_refused(closed: Books) -> None:
    make_anew(closed, order="id DESC", keys_start_at="min(id)")
    with pytest.raises(
        TableMadeAnew, match="was txn_first when a close looked at it and is txn_later now, the first of 3"
    ):
        closed.close_day("2026-01-31")


def test_made_anew_behind_a_close_that_counted_nothing_is_refused_by_those_before_it(closed: Books) -> None:
    closed.close_day("2026-01-31")
    make_anew(closed, order="id")
    with pytest.raises(TableMadeAnew, match="of the 2 rows"):
        closed.close_day("2026-02-01")


def test_one_counted_row_that_is_deleted_stops_no_close(closed: Books) -> None:
    closed.execute("ALTER TABLE blnk.transactions DISABLE TRIGGER USER")
    closed.execute("DELETE FROM blnk.transactions WHERE transaction_id = 'txn_third'")
    closed.execute("ALTER TABLE blnk.transactions ENABLE TRIGGER USER")
    assert closed.close_day("2026-01-31").certified


def test_made_anew_between_opening_and_counting_leaves_keys_that_are_gone_and_is_refused_next(closed: Books) -> None:
    """An open run goes on with its cut, in which the new rows are not; the next run sees that they are new."""
    run = closed.open_day("2026-01-31")
    make_anew(closed, order="id")
    finished = closed.finish(run)
    assert finished.certified
    assert figures(closed, finished) == {"bln_world_usd": (0, 1250), "bln_wallet": (1250, 100), "bln_shop": (100, 0)}
    assert closed.rows("SELECT cause FROM ledger_eod.run_exceptions WHERE run_id = :run", run=run.run_id) == [("gone",)]
    with pytest.raises(TableMadeAnew):
        closed.close_day("2026-02-01")
