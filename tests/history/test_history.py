"""Generated histories: whatever is recorded when, every answer about any instant equals a sum done by hand.

What each run knew is noted by the test itself when the run is opened: the ids that were committed by then.
"""

from __future__ import annotations

import random
from datetime import datetime, timedelta

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from sqlalchemy import text

from ledger_db.core.calendar import BusinessCalendar
from ledger_db.errors import UnknowableAt, UnknownBalance, UnknownRun
from ledger_db.history.balance_at import balance_at
from tests.testing.books import Books, Ledger, instant
from tests.testing.histories import CALENDARS, CURRENCIES, MINUTES, START, History, events, nights, play
from tests.testing.oracle import (
    NOTHING,
    Figures,
    Row,
    add_up,
    clone,
    read_rows,
    snapshots_of,
    without_zeros,
)


def expected_at(rows: list[Row], history: History, known_at: int | None, moment: datetime) -> dict[str, Figures]:
    if known_at is None:
        return add_up(rows, before=moment, cut=None)
    _, knew = history.known[known_at]
    return add_up([row for row in rows if row.transaction_id in knew], before=moment, cut=None)


def check(history: History, chance: random.Random) -> None:
    balances = [*(f"bln_{name}" for name in CURRENCIES), "bln_x", "bln_y"]
    boundaries = [run.closes_at for run, _ in history.known.values()]
    edges = [edge + timedelta(microseconds=step) for edge in boundaries for step in (-1, 0, 1)]
    grid = [START + timedelta(days=chance.randrange(-4, 10), minutes=chance.choice(MINUTES)) for _ in range(8)]
    with history.books.engine.connect() as connection:
        rows = read_rows(connection)
        assert {row.transaction_id for row in rows} == set(history.committed)
        for run, knew in history.known.values():
            snapshots = snapshots_of(connection, run)
            proved = expected_at(rows, history, run.run_id, run.closes_at)
            # an interim run holds the balances that had no interim row of that day yet
            assert without_zeros(snapshots) == without_zeros({key: proved.get(key, NOTHING) for key in snapshots})
            if run.kind == "close":
                assert set(snapshots) == set(balances)
                assert sum(f.credit - f.debit for f in snapshots.values()) == 0
                assert sum(f.inflight_credit - f.inflight_debit for f in snapshots.values()) == 0
            del knew
        # snapshot + later = balance, for every run at once: the stored rows are what all postings add up to
        everything = add_up(rows, before=instant("2099-01-01"), cut=None)
        stored = connection.execute(
            text(
                "SELECT balance_id, credit_balance, debit_balance, inflight_credit_balance, inflight_debit_balance "
                "FROM blnk.balances"
            )
        )
        assert {id_: Figures(*map(int, amounts)) for id_, *amounts in stored} == {
            balance: everything.get(balance, NOTHING) for balance in balances
        }
        for known_at in (None, *history.known):
            for moment in chance.sample(edges, min(6, len(edges))) + chance.sample(grid, 3):
                expected = expected_at(rows, history, known_at, moment)
                for balance in chance.sample(balances, 3):
                    for from_source in (False, True):
                        answer = balance_at(connection, balance, moment, known_at=known_at, from_source=from_source)
                        assert Figures(
                            answer.credit_balance, answer.debit_balance,
                            answer.inflight_credit_balance, answer.inflight_debit_balance,
                        ) == expected.get(balance, NOTHING), (balance, moment, known_at, from_source)  # fmt: skip


@settings(
    max_examples=20, deadline=None, database=None,
    phases=[Phase.explicit, Phase.generate],  # shrinking a history takes minutes
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow, HealthCheck.data_too_large],
)  # fmt: skip
@given(written=st.lists(nights, min_size=2, max_size=5), after=st.lists(events, max_size=5), seed=st.integers(0, 2**32))
def test_history_equals_a_sum_by_hand(
    ledger: Ledger,
    written: list[tuple[list[tuple[object, ...]], int, BusinessCalendar, bool, list[tuple[object, ...]]]],
    after: list[tuple[object, ...]],
    seed: int,
) -> None:
    with clone(ledger) as fresh:
        history = History(Books(fresh))
        for name, currency in CURRENCIES.items():
            history.books.open(name, currency)
        history.books.open("x"), history.books.open("y")
        try:
            play(history, written)
            for event in after:
                history.play(event)
        finally:
            history.end()
        check(history, random.Random(seed))  # noqa: S311


def test_a_long_chain_with_everything_in_it(books: Books) -> None:
    """One fixed history that is known to have each thing in it: late, future, tied, missed, changed, on hold, open."""
    history = History(books)
    for name, currency in CURRENCIES.items():
        books.open(name, currency)
    books.open("x"), books.open("y")
    day = timedelta(days=1)
    nine, boundary = START + timedelta(hours=9), START + day
    play(history, [
        ([("post", ("a", "b"), 2**70, nine, None), ("hold", ("a", "c"), 900, nine, None),
          ("post", ("p", "q"), 50, nine, boundary), ("leave open", 77, nine)], 0, CALENDARS[0], True,
         [("post", ("a", "b"), 5, nine, None)]),
        ([("commit", 0, 400, nine + day), ("post", ("b", "b"), 3, boundary, None), ("refund", 0, 1, nine + day),
          ("post", ("c", "a"), 11, nine + day, nine - 2 * day)], 1, CALENDARS[2], True, []),
        ([("finish open", 1, nine), ("post", ("a", "b"), 13, nine, boundary - timedelta(minutes=1)),
          ("void", 0, 1, nine + 2 * day), ("post", ("q", "p"), 8, nine, nine + 5 * day)], 0, CALENDARS[1], False,
         [("post", ("a", "c"), 17, nine, nine)]),
        ([("post", ("a", "b"), 19, nine, nine + day)], 0, CALENDARS[4], True, []),
        ([], 0, CALENDARS[3], False, []),
        ([("post", ("b", "a"), 23, nine, nine + 2 * day)], 0, CALENDARS[0], True, []),
    ])  # fmt: skip
    history.play(("post", ("b", "a"), 29, nine, nine + day))
    check(history, random.Random(1))  # noqa: S311
    closes = [run for run, _ in history.known.values() if run.kind == "close"]
    assert len(closes) >= 5
    assert books.rows("SELECT count(DISTINCT run_id) > 2 FROM ledger_eod.activity WHERE is_late") == [(True,)]


def test_questions_that_have_no_answer_are_refused(books: Books) -> None:
    books.open("wallet")
    run = books.open_day("2026-01-31")
    with pytest.raises(UnknownBalance, match="there is no balance bln_nobody"):
        books.balance("nobody", at="2026-02-01")
    with pytest.raises(UnknownRun, match="there is no run 99"):
        books.balance("wallet", at="2026-02-01", known_at=99)
    with pytest.raises(UnknownRun, match="2026-01-31 has no certified close"):
        books.balance("wallet", at="2026-02-01", known_at="2026-01-31")
    with pytest.raises(UnknowableAt, match="is open: only a certified run says what was known"):
        books.balance("wallet", at="2026-02-01", known_at=run.run_id)


def test_after_a_restore_the_chain_goes_on_and_what_was_known_before_it_is_still_told(books: Books) -> None:
    """A copy simulated in place: the cluster and the cuts of its runs are another one's."""
    books.post("""
        recorded          effective         source  destination  amount
        2026-01-31 09:00  -                 @world  wallet       10.00 USD
        2026-01-31 09:00  2026-02-01 09:00  @world  wallet        2.00 USD
    """)
    old = books.close_day("2026-01-31")
    books.execute("ALTER TABLE ledger_eod.runs DISABLE TRIGGER refuse_edit")
    books.execute("UPDATE ledger_eod.runs SET system_identifier = '1', cut = '900000000:900000000:'")
    books.execute("ALTER TABLE ledger_eod.runs ENABLE TRIGGER refuse_edit")
    books.execute("UPDATE ledger_eod.clusters SET system_identifier = '1', cut = '900000000:900000000:'")
    books.post("""
        recorded          effective         source  destination  amount
        2026-02-01 09:00  2026-01-20 09:00  @world  wallet        5.00 USD
    """)

    def assert_told() -> None:
        for from_source in (False, True):
            assert books.balance("wallet", at="2026-01-20 10:00", from_source=from_source) == "5.00"
            assert books.balance("wallet", at="2026-02-01", from_source=from_source) == "15.00"
            assert books.balance("wallet", at="2026-02-02", from_source=from_source) == "17.00"
            for at, amount in (("2026-02-01", "10.00"), ("2026-02-02", "12.00")):
                assert books.balance("wallet", at=at, known_at=old.run_id, from_source=from_source) == amount

    assert_told()  # before the first close of the copy
    run = books.close_day("2026-02-01")
    assert (run.base_run_id, run.genesis_run_id) == (old.run_id, old.run_id)
    assert_told()
    assert books.balance("wallet", at="2026-02-02", known_at=run.run_id) == "17.00"
    books.post("""
        recorded          effective         source  destination  amount
        2026-02-02 09:00  -                 @world  wallet        1.00 USD
        2026-02-02 09:00  2026-01-20 09:30  @world  wallet        0.50 USD
    """)
    following = books.close_day("2026-02-02")
    assert following.base_run_id == run.run_id
    for from_source in (False, True):
        assert books.balance("wallet", at="2026-02-03", from_source=from_source) == "18.50"
        assert books.balance("wallet", at="2026-02-03", known_at=run.run_id, from_source=from_source) == "17.00"
