"""What is counted in advance: the close takes over what is still as it was, and says what it would have said anyhow."""

from __future__ import annotations

import random
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, date, datetime, time
from time import sleep
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from sqlalchemy import Connection, text

from ledger_db.close import counting
from ledger_db.close.certification import certify_run
from ledger_db.close.counting import count_piece, finish_counting
from ledger_db.close.opening import abandon_run
from ledger_db.close.preparing import Preparation, prepare_close
from ledger_db.close.row_digests import digests_then_and_now
from ledger_db.close.runs import Run, find_run
from ledger_db.core.calendar import BusinessCalendar
from ledger_db.errors import NothingToPrepare, RunNotOpen
from ledger_db.settings import get_settings
from tests.close.test_counting import Interrupted, stopping_after
from tests.testing import PROJECT
from tests.testing.books import Books, Ledger
from tests.testing.ledger_model import keys_in
from tests.testing.oracle import assert_proved, open_interim_at
from tests.testing.verifications import verify

UTC_DAYS = BusinessCalendar()


@pytest.fixture
def books(ledger: Ledger) -> Books:
    """A closed day, and four parts of the next one: the last two have what is counted in advance in two rounds."""
    books = Books(ledger)
    books.post("""
        recorded          source  destination  amount       reference
        2026-01-30 09:00  @world  wallet       100.00 USD   base
    """)
    books.close_day("2026-01-30")
    return books


MORNING = """
    recorded          effective         source  destination  amount     reference  status    parent
    2026-01-31 08:00  -                 @world  wallet       10.00 USD  first      APPLIED   -
    2026-01-31 08:01  -                 wallet  shop          2.50 USD  hold       INFLIGHT  -
    2026-01-31 08:02  2026-01-30 12:00  wallet  shop          0.07 USD  late       APPLIED   -
    2026-01-31 08:03  2026-02-02 12:00  wallet  shop          0.11 USD  future     APPLIED   -
"""
NOON = """
    recorded          source  destination  amount    reference  status   parent
    2026-01-31 12:00  wallet  shop         1.00 USD  commit     APPLIED  hold
    2026-01-31 12:01  wallet  shop         3.00 USD  second     APPLIED  -
"""
EVENING = """
    recorded          source  destination  amount    reference
    2026-01-31 20:00  wallet  shop         4.00 USD  third
"""


def prepare(books: Books, at: str = "12:30", *, day: str = "2026-01-31", **options: Any) -> Preparation:
    books.fill_part()
    now = datetime.combine(date.fromisoformat(day), time.fromisoformat(at), UTC)
    return prepare_close(books.engine, calendar=UTC_DAYS, now=now, writers_seconds=0, **options)


def prepared_day(books: Books) -> None:
    """Two rounds, and rows after them."""
    books.post(MORNING)
    prepare(books, "09:00")
    books.post(NOON)
    prepare(books)
    books.post(EVENING)


def edit(books: Books, statement: str) -> None:
    """Change the ledger past every trigger and key, as its owner can."""
    with books.engine.begin() as connection:
        connection.execute(text("SET LOCAL session_replication_role = replica"))
        assert connection.execute(text(statement)).rowcount > 0


def work_of(books: Books, run: Run) -> list[str]:
    """The kinds of work of a run's pieces, in key order; of holds apart."""
    rows = books.rows(
        "SELECT CAST(work AS text) FROM ledger_eod.run_pieces WHERE run_id = :run AND work IN ('new', 'prepared') "
        "ORDER BY first_key",
        run=run.run_id,
    )
    return [work for (work,) in rows]


def close(books: Books, day: str = "2026-01-31") -> Run:
    """Close a day, and look at it from outside, by its digests and by every verification."""
    run = books.close_day(day)
    assert_proved(books, run)
    with books.engine.connect() as connection:
        stored, now = digests_then_and_now(connection, run)
    assert stored == now
    return run


def nothing_is_found(books: Books) -> None:
    """Also by what compares stored balances, which no edit of these tests has moved along."""
    assert verify(books, "checksums").found == []
    assert verify(books, "since-close").found == []
    assert verify(books, "from-genesis").found == []


def test_what_is_as_it_was_is_taken_over_in_one_piece(books: Books) -> None:
    prepared_day(books)
    assert books.rows("SELECT kind::text, status::text FROM ledger_eod.runs WHERE run_id > 1") == [
        ("preparation", "open"),
        ("preparation", "open"),
    ]
    run = close(books)
    assert work_of(books, run) == ["prepared", "new"]
    assert books.balance("wallet", at="2026-02-01") == "101.93"
    assert books.balance("wallet", at="2026-01-31") == "99.93"
    assert len(keys_in(books, "counted", run)) == 8  # two of them never count
    assert len(keys_in(books, "pending", run)) == 1
    assert len(keys_in(books, "released", run)) == 1
    nothing_is_found(books)
    # nothing is left of the preparations, and nothing was captured by them
    assert books.rows("SELECT count(*) FROM ledger_eod.runs WHERE kind = 'preparation' AND status = 'open'") == [(0,)]
    for table in ("activity", "run_keys", "run_pieces", "prepared_parts", "prepared_balances", "sampled_rows"):
        left = books.rows(
            f"SELECT count(*) FROM ledger_eod.{table} JOIN ledger_eod.runs USING (run_id) WHERE kind = 'preparation'"
        )
        assert left == [(0,)], table
    assert books.rows("SELECT DISTINCT first_run_id FROM ledger_eod.captured_balances ORDER BY 1") == [(1,), (4,)]


def test_figures_keys_and_digests_are_those_of_a_day_that_was_not_prepared(books: Books) -> None:
    prepared_day(books)
    run = close(books)
    questions = {
        "snapshots": "SELECT balance_key, last_transaction_key, credit_balance, debit_balance, "
        "inflight_credit_balance, inflight_debit_balance FROM ledger_eod.balance_snapshots "
        "WHERE run_id = :run ORDER BY 1",
        "activity": "SELECT balance_key, effective_date, is_late, sum(posting_count), sum(credit_balance), "
        "sum(debit_balance), sum(inflight_credit_balance), sum(inflight_debit_balance), max(last_transaction_key) "
        "FROM ledger_eod.activity WHERE run_id = :run GROUP BY 1, 2, 3 ORDER BY 1, 2",
        "keys": "SELECT key_set::text, effective_date, block, range_agg(span) FROM ledger_eod.run_keys, "
        "unnest(keys) AS span WHERE run_id = :run GROUP BY 1, 2, 3 ORDER BY 1, 2, 3",
        "totals": "SELECT currency, balance_count, credit_balance, debit_balance, inflight_credit_balance, "
        "inflight_debit_balance, itemised_difference FROM ledger_eod.run_totals WHERE run_id = :run",
        "exceptions": "SELECT transaction_key, currency, cause, difference, inflight_difference "
        "FROM ledger_eod.run_exceptions WHERE run_id = :run ORDER BY 1, 2",
        "digests": "SELECT effective_date, sum(transaction_count), sum(posted_amount), sum(held_amount) "
        "FROM ledger_eod.row_digests WHERE run_id = :run GROUP BY 1 ORDER BY 1",
        "samples": "SELECT transaction_key, key_set::text, transaction_id FROM ledger_eod.sampled_rows "
        "WHERE run_id = :run ORDER BY 1",
    }
    said = {what: books.rows(question, run=run.run_id) for what, question in questions.items()}

    def again(connection: Any) -> None:  # the same close without what was counted in advance
        for guarded in ("runs", "run_totals", "figure_digests"):
            connection.execute(text(f"ALTER TABLE ledger_eod.{guarded} DISABLE TRIGGER USER"))
        connection.execute(text("DELETE FROM ledger_eod.run_totals WHERE run_id = :run"), {"run": run.run_id})
        connection.execute(text("DELETE FROM ledger_eod.figure_digests WHERE run_id = :run"), {"run": run.run_id})
        connection.execute(text("UPDATE ledger_eod.runs SET status = 'open' WHERE run_id = :run"), {"run": run.run_id})
        for guarded in ("runs", "run_totals", "figure_digests"):
            connection.execute(text(f"ALTER TABLE ledger_eod.{guarded} ENABLE TRIGGER USER"))

    with books.engine.begin() as connection:
        again(connection)
        abandon_run(connection, run.run_id)
    plain = close(books)
    assert work_of(books, plain) == ["new"]
    assert {what: books.rows(question, run=plain.run_id) for what, question in questions.items()} == said


CHANGES = {
    "an amount is corrected": "UPDATE blnk.transactions SET precise_amount = 900, amount = 9 WHERE reference = 'first'",
    "a sign is turned": "UPDATE blnk.transactions SET precise_amount = -1000, amount = -10 WHERE reference = 'first'",
    "a date is moved": "UPDATE blnk.transactions SET effective_date = '2026-02-05' WHERE reference = 'first'",
    "a pending row is moved to today": "UPDATE blnk.transactions SET effective_date = '2026-01-31' "
    "WHERE reference = 'future'",
    "a reference is corrected": "UPDATE blnk.transactions SET reference = 'other' WHERE reference = 'first'",
    "a row is removed": "DELETE FROM blnk.transactions WHERE reference = 'first'",
    "another destination": "UPDATE blnk.transactions SET destination = 'bln_shop' WHERE reference = 'first'",
    "a row comes late below the last key": "INSERT INTO blnk.transactions (id, transaction_id, source, destination, "
    "precise_amount, status, created_at) VALUES (500, 'txn_low', 'bln_wallet', 'bln_shop', 1, 'APPLIED', "
    "'2026-01-31 08:04')",
}


@pytest.mark.parametrize("what", CHANGES)
def test_a_piece_of_which_a_row_is_not_as_it_was_is_counted_again(books: Books, what: str) -> None:
    prepared_day(books)
    edit(books, CHANGES[what])
    run = close(books)
    assert work_of(books, run) == ["new", "prepared", "new"]
    assert verify(books, "checksums").found == []


def test_the_middle_of_three_is_counted_again(books: Books) -> None:
    books.post(MORNING)
    prepare(books, "09:00")
    books.post(NOON)
    prepare(books)
    books.post(EVENING)
    prepare(books, "21:00")
    edit(
        books,
        "UPDATE blnk.transactions SET precise_amount = 301, amount = 3.01 WHERE reference = 'second'",
    )
    run = close(books)
    assert work_of(books, run) == ["prepared", "new", "prepared"]
    assert books.balance("wallet", at="2026-02-01") == "101.92"
    assert verify(books, "checksums").found == []


def test_an_edit_after_the_pieces_are_planned_is_seen_too(books: Books) -> None:
    prepared_day(books)
    run = books.open_day("2026-01-31")
    with books.engine.begin() as connection:
        counting.plan_pieces(connection, run.run_id, piece_size=1000)
    edit(books, CHANGES["an amount is corrected"])
    run = books.finish(run)
    assert work_of(books, run) == ["new", "prepared", "new"]
    assert books.balance("wallet", at="2026-02-01") == "100.93"
    assert_proved(books, run)
    assert verify(books, "checksums").found == []


def test_a_hold_that_goes_before_the_close_releases_nothing(books: Books) -> None:
    """What a row's parent says is part of what was counted: its child lies in another piece, and is pending now."""
    prepared_day(books)
    edit(books, "DELETE FROM blnk.transactions WHERE reference = 'hold'")
    run = books.close_day("2026-01-31")
    assert work_of(books, run) == ["new", "new", "new"]
    assert keys_in(books, "settling", run) == {}
    assert len(keys_in(books, "pending", run)) == 2


def test_metadata_may_change(books: Books) -> None:
    prepared_day(books)
    edit(books, "UPDATE blnk.transactions SET meta_data = '{\"a\": 1}', description = 'changed'")
    assert work_of(books, close(books)) == ["prepared", "new"]


def test_a_row_without_its_balance_is_counted_again_when_it_has_one(books: Books) -> None:
    books.post(MORNING)
    edit(
        books,
        "INSERT INTO blnk.transactions (transaction_id, source, destination, precise_amount, status, created_at) "
        "VALUES ('txn_early', 'bln_wallet', 'bln_new', 5, 'APPLIED', '2026-01-31 08:05')",
    )
    prepare(books)
    books.open("new")
    run = close(books)
    assert work_of(books, run) == ["new"]
    assert books.balance("new", at="2026-02-01") == "0.05"


@pytest.mark.parametrize(
    ("change", "work"),
    [
        ("SELECT 1", ["prepared"]),
        ("UPDATE blnk.balances SET currency = 'EUR' WHERE balance_id = 'bln_shop'", ["new"]),
        ("UPDATE blnk.balances SET id = id + 1000 WHERE balance_id = 'bln_shop'", ["new"]),
        ("DELETE FROM blnk.balances WHERE balance_id = 'bln_shop'", ["new"]),
    ],
)
def test_a_new_balance_is_as_the_close_captures_it(books: Books, change: str, work: list[str]) -> None:
    books.post(MORNING)
    prepare(books)
    if change.startswith("SELECT"):
        books.rows(change)
    else:
        edit(books, change)
    run = books.close_day("2026-01-31")
    assert work_of(books, run) == work
    currency = "EUR" if "EUR" in change else "USD"
    captured = books.rows(
        "SELECT currency, first_run_id FROM ledger_eod.captured_balances WHERE balance_id = 'bln_shop'"
    )
    assert captured == ([] if "DELETE" in change else [(currency, run.run_id)])


def test_an_interim_run_in_between_changes_nothing(books: Books) -> None:
    books.post(MORNING)
    prepare(books, "09:00")
    opened = open_interim_at(books, "2026-01-31 10:00")
    assert opened is not None
    interim = books.finish(opened)
    assert_proved(books, interim)
    books.post(NOON)
    prepare(books)
    run = close(books)
    assert work_of(books, run) == ["prepared"]
    nothing_is_found(books)


def test_a_balance_that_another_run_captures_meanwhile_is_counted_once(books: Books) -> None:
    """A preparation that found it, planned and uncounted; an interim run that captures it; then the rest is counted."""
    books.post(MORNING)
    books.fill_part()
    books.post(NOON)
    with pytest.raises(Interrupted):
        prepare(books, "09:00", piece_size=1, report=stopping_after(0))
    opened = open_interim_at(books, "2026-01-31 10:00")
    assert opened is not None
    prepare(books)
    books.finish(opened)
    run = close(books)
    assert work_of(books, run) == ["prepared"]
    nothing_is_found(books)


def test_after_a_close_without_a_row_the_first_key_is_the_lowest_of_all(ledger: Ledger) -> None:
    books = Books(ledger)
    books.open("wallet")
    books.close_day("2026-01-30")
    books.post(MORNING)
    prepare(books)
    run = close(books)
    assert work_of(books, run) == ["prepared"]
    assert books.rows("SELECT min(first_key) FROM ledger_eod.run_pieces WHERE work = 'prepared'") == [(-(2**63) + 1,)]
    nothing_is_found(books)


def test_a_piece_that_has_grown_is_counted_in_several(books: Books, monkeypatch: pytest.MonkeyPatch) -> None:
    """An explicit huge key makes a piece of all keys up to it; what comes after lies in that piece."""
    monkeypatch.setenv("LEDGER_PIECE_SIZE", "10")
    get_settings.cache_clear()
    books.post(MORNING)
    books.insert(
        id=2**31 - 1, source=books.id_of("@world"), destination="bln_wallet", precise_amount=1, amount=0.01,
        created_at="2026-01-31 08:05",
    )  # fmt: skip
    prepare(books)
    books.execute(
        "INSERT INTO blnk.transactions (transaction_id, source, destination, precise_amount, status, created_at) "
        "SELECT 'txn_more_' || n, :world, 'bln_wallet', 1, 'APPLIED', '2026-01-31 18:00' "
        "FROM generate_series(1, 3000) AS n",
        world=books.id_of("@world"),
    )
    run = books.close_day("2026-01-31")
    assert set(work_of(books, run)) == {"new"}
    assert books.rows("SELECT max(counted_count) FROM ledger_eod.run_pieces WHERE run_id = :run", run=run.run_id) == [
        (10,)
    ]


def test_a_close_is_certified_although_nothing_can_be_cleared_up(books: Books) -> None:
    prepared_day(books)
    books.execute(
        "CREATE FUNCTION public.poison() RETURNS trigger LANGUAGE plpgsql AS "
        "$$ BEGIN RAISE EXCEPTION 'poisoned'; END $$"
    )
    books.execute("CREATE TRIGGER poison BEFORE DELETE ON ledger_eod.prepared_parts EXECUTE FUNCTION public.poison()")
    assert close(books).certified
    books.execute("DROP TRIGGER poison ON ledger_eod.prepared_parts")
    with pytest.raises(NothingToPrepare):
        prepare(books)
    books.post("""
        recorded          source  destination  amount
        2026-02-01 08:00  @world  wallet       1.00 USD
    """)
    prepare(books, day="2026-02-01")
    assert books.rows("SELECT kind::text, business_date FROM ledger_eod.runs WHERE status = 'open'") == [
        ("preparation", date(2026, 2, 1))
    ]


def test_what_another_version_counted_is_counted_again(books: Books, monkeypatch: pytest.MonkeyPatch) -> None:
    prepared_day(books)
    monkeypatch.setattr(counting, "_rules", lambda: "of another version")
    assert work_of(books, close(books)) == ["new", "new", "new"]


def test_a_preparation_that_was_given_up_is_not_needed(books: Books) -> None:
    prepared_day(books)
    run = books.open_day("2026-01-31")
    with books.engine.begin() as connection:
        counting.plan_pieces(connection, run.run_id, piece_size=1000)
        abandon_run(connection, 2)
    run = books.finish(run)
    assert work_of(books, run) == ["new", "new"]
    assert_proved(books, run)
    nothing_is_found(books)


def test_pieces_that_were_not_counted_are_counted_by_the_next_round_or_the_close(books: Books) -> None:
    books.post(MORNING)
    books.fill_part()
    books.post(NOON)
    with pytest.raises(Interrupted):
        prepare(books, "09:00", piece_size=1, report=stopping_after(0))
    undone = "SELECT count(*) FROM ledger_eod.run_pieces WHERE done_at IS NULL AND run_id = 2"
    assert books.rows(undone) == [(1,)]
    again = prepare(books)
    assert [(run.run_id, len(pieces)) for run, pieces in again.work] == [(2, 1)]
    assert books.rows(undone) == [(0,)]
    assert prepare(books).work == []
    assert work_of(books, close(books)) == ["prepared"]


def test_two_rounds_at_once_and_a_close_beside_them(books: Books) -> None:
    """Rounds and the close in any order: each key is counted once, and nothing fails but what is refused."""
    barrier = threading.Barrier(5)
    books.post(MORNING)
    books.fill_part()
    books.post(NOON)
    books.fill_part()

    def round_(number: int) -> str:
        barrier.wait()
        if number == 0:
            return books.close_day("2026-01-31").status
        try:
            prepare_close(books.engine, calendar=UTC_DAYS, now=datetime(2026, 1, 31, 12, tzinfo=UTC), writers_seconds=0)
        except (NothingToPrepare, RunNotOpen) as refusal:
            return type(refusal).__name__
        return "prepared"

    with ThreadPoolExecutor(5) as pool:
        said = list(pool.map(round_, range(5)))
    assert said[0] == "certified"
    assert set(said[1:]) <= {"prepared", "NothingToPrepare", "RunNotOpen"}
    with books.engine.connect() as connection:
        (close_id,) = books.rows("SELECT run_id FROM ledger_eod.runs WHERE kind = 'close' AND run_id > 1")[0]
        assert_proved(books, find_run(connection, close_id))
    assert books.balance("wallet", at="2026-02-01") == "105.93"
    nothing_is_found(books)


def test_killed_anywhere_the_next_round_and_the_close_go_on(books: Books) -> None:
    for number in range(8):
        books.post(f"""
            recorded          source  destination  amount
            2026-01-31 08:00  @world  wallet       {number + 1}.00 USD
        """)
        books.fill_part()
    books.execute(
        "CREATE FUNCTION public.slow() RETURNS trigger LANGUAGE plpgsql AS "
        "'BEGIN PERFORM pg_sleep(0.02); RETURN NEW; END'"
    )
    books.execute(
        "CREATE TRIGGER slow BEFORE INSERT ON ledger_eod.activity FOR EACH ROW EXECUTE FUNCTION public.slow()"
    )
    url = books.ledger.url.render_as_string(hide_password=False)
    chance, counted = random.Random(), [0]  # noqa: S311 - anywhere is the point
    for point in ("started", "counted", "counted", "counted"):
        with subprocess.Popen(
            [sys.executable, "-m", "tests.testing.prepare_process", url, "2026-01-31T12:00:00+00:00"],
            stdout=subprocess.PIPE, text=True, cwd=PROJECT,
        ) as process:  # fmt: skip
            assert process.stdout is not None
            while (said := process.stdout.readline()) and not said.startswith(point):
                pass
            assert said, f"{process.wait()} before it said {point}"
            sleep(chance.random() / 10)
            process.kill()
        assert process.returncode == -9
        ((done,),) = books.rows("SELECT count(done_at) FROM ledger_eod.run_pieces JOIN ledger_eod.runs USING (run_id) "
                                "WHERE kind = 'preparation'")  # fmt: skip
        counted.append(done)
    assert counted[-1] > 0
    run = close(books)
    assert work_of(books, run)[0] == "prepared"
    assert len(keys_in(books, "counted", run)) == 16
    assert books.balance("wallet", at="2026-02-01") == "136.00"
    nothing_is_found(books)


def test_a_writer_that_goes_on_makes_its_piece_be_counted_again(books: Books) -> None:
    books.post(MORNING)
    with books.engine.connect() as writer:
        transaction = writer.begin()
        books.post_on(writer, EVENING)
        prepare(books)
        transaction.commit()
    run = close(books)
    assert work_of(books, run) == ["new"]
    assert books.balance("wallet", at="2026-02-01") == "105.93"


@pytest.mark.parametrize(
    ("day", "said"),
    [
        ("2026-01-30", "2026-01-30 is closed already: the newest close is of 2026-01-30"),
        ("2026-02-01", "2026-02-01 has dates before it to close: the newest close is of 2026-01-30"),
    ],
)
def test_only_the_date_after_the_newest_close_is_prepared(books: Books, day: str, said: str) -> None:
    books.post(MORNING)
    with pytest.raises(NothingToPrepare, match=said):
        prepare(books, day=day)
    assert books.rows("SELECT count(*) FROM ledger_eod.runs") == [(1,)]


def test_nothing_is_prepared_without_a_close_or_beside_an_open_one(ledger: Ledger) -> None:
    books = Books(ledger)
    books.post(MORNING)
    with pytest.raises(NothingToPrepare, match="the ledger has no close yet"):
        prepare(books)
    books.open_day("2026-01-30")
    with pytest.raises(NothingToPrepare, match="the close of 2026-01-30 is not certified yet"):
        prepare(books)


def test_another_cut_off_begins_anew(books: Books) -> None:
    books.post(MORNING)
    prepare(books, "09:00")
    books.post(NOON)
    other = BusinessCalendar(zone=ZoneInfo("UTC"), cut_off=time(22))
    books.fill_part()
    prepare_close(books.engine, calendar=other, now=datetime(2026, 1, 31, 13, tzinfo=UTC), writers_seconds=0)
    assert books.rows("SELECT run_id, status::text FROM ledger_eod.runs WHERE kind = 'preparation' ORDER BY 1") == [
        (2, "abandoned"),
        (3, "open"),
    ]
    assert books.rows("SELECT min(first_key), max(last_key) FROM ledger_eod.run_pieces WHERE run_id = 3") == [(2, 2047)]
    run = close(books)  # at midnight after all
    assert work_of(books, run) == ["new"]


def test_after_a_restore_nothing_is_taken_over(books: Books) -> None:
    prepared_day(books)
    books.execute("UPDATE ledger_eod.clusters SET system_identifier = '1'")
    run = books.close_day("2026-01-31")
    assert work_of(books, run) == ["new"]
    assert books.balance("wallet", at="2026-02-01") == "101.93"


def plan_all(connection: Connection, run_id: int) -> None:
    counting.plan_pieces(connection, run_id, piece_size=1000)


def plan_holds(connection: Connection, run_id: int) -> None:
    counting.plan_hold_pieces(connection, run_id, piece_size=1000)


def test_a_preparation_is_no_run_that_can_be_finished(books: Books) -> None:
    books.post(MORNING)
    prepare(books)
    for step in (plan_all, plan_holds, finish_counting, certify_run):
        with books.engine.begin() as connection, pytest.raises(RunNotOpen, match="counts for a close, and is none"):
            step(connection, 2)
    with books.engine.begin() as connection:
        count_piece(connection, 2, 1)  # done already
    assert books.balance("wallet", at="2026-01-31 10:00") == "109.93"
