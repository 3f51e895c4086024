"""The first run after a restore: it alters and locks nothing of the ledger, and what was under way is counted once.

A copy is simulated in place: the cluster and the cut that are stored are another one's.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import date

import pytest
from sqlalchemy import Connection, Engine, event, text

from ledger_db.close.activity import late_arrivals, late_totals
from ledger_db.close.opening import open_close
from ledger_db.close.runs import Run
from ledger_db.core.calendar import BusinessCalendar
from ledger_db.server.connections import make_engine
from ledger_db.settings import Settings
from tests.testing.books import Books, Ledger, instant
from tests.testing.clusters import pretend_restored
from tests.testing.ledger_model import keys_in, pending_in
from tests.testing.oracle import assert_proved, open_interim_at
from tests.testing.verifications import verify

RELATIONS = """
    SELECT oid, relfilenode, relname, relnatts, relchecks, relhastriggers FROM pg_class
    WHERE oid IN ('blnk.transactions'::regclass, 'blnk.balances'::regclass)
        OR oid IN (
            SELECT indexrelid FROM pg_index
            WHERE indrelid IN ('blnk.transactions'::regclass, 'blnk.balances'::regclass)
        )
    ORDER BY oid
"""
COLUMNS = """
    SELECT attrelid, attnum, attname, atttypid, atthasdef, attnotnull, attisdropped FROM pg_attribute
    WHERE attrelid IN ('blnk.transactions'::regclass, 'blnk.balances'::regclass)
    ORDER BY 1, 2
"""


@pytest.fixture
def books(ledger: Ledger) -> Books:
    """Two closed days, and a row that is pending."""
    books = Books(ledger)
    books.post("""
        recorded          effective         source  destination  amount     status    parent
        2026-01-29 09:00  -                 @world  wallet       10.00 USD  APPLIED   -
        2026-01-29 10:00  2026-02-01 09:00  wallet  shop          1.00 USD  APPLIED   -
    """)
    books.open("aside"), books.open("@aside"), books.open("idle")
    books.close_day("2026-01-29")
    books.close_day("2026-01-30")
    return books


def impatient(books: Books) -> Books:
    """The same ledger for somebody who waits for nobody."""
    settings = Settings(lock_timeout_seconds=1, statement_timeout_seconds=10)
    copy = Books(Ledger(books.ledger.url, make_engine(books.ledger.url, settings=settings)))
    copy._numbers = books._numbers
    return copy


@contextmanager
def locks_on_the_ledger(engine: Engine) -> Iterator[set[tuple[str, str]]]:
    """What every transaction of an engine had locked as it was committed: relation and mode."""
    seen: set[tuple[str, str]] = set()

    def look(connection: Connection) -> None:
        held = connection.exec_driver_sql(
            "SELECT relname, mode FROM pg_locks JOIN pg_class ON pg_class.oid = relation "
            "WHERE pid = pg_backend_pid() AND relnamespace = 'blnk'::regnamespace"
        )
        seen.update((str(name), str(mode)) for name, mode in held)

    event.listen(engine, "commit", look)
    yield seen
    event.remove(engine, "commit", look)


def test_it_alters_nothing_of_the_ledger_and_waits_for_no_writer(books: Books) -> None:
    left = books.open_day("2026-01-31")
    pretend_restored(books)
    definition = [books.rows(RELATIONS), books.rows(COLUMNS)]
    ours = impatient(books)
    with books.engine.connect() as writer, writer.begin(), locks_on_the_ledger(ours.engine) as seen:
        books.post_on(writer, """
            recorded          source  destination  amount
            2026-01-31 09:00  @aside  aside        1.00 USD
        """)  # fmt: skip
        run = ours.close_day("2026-01-31")
        assert run.certified
        assert run.run_id != left.run_id
        writer.commit()
    ours.engine.dispose()
    assert {mode for _, mode in seen} <= {"AccessShareLock", "RowShareLock"}, seen
    assert {"transactions", "balances"} <= {name for name, _ in seen}
    assert [books.rows(RELATIONS), books.rows(COLUMNS)] == definition


def test_no_writer_waits_for_it(books: Books) -> None:
    pretend_restored(books)
    writers = impatient(books)
    with books.engine.begin() as connection:
        run = open_close(
            connection, business_date=date(2026, 1, 31), calendar=BusinessCalendar(), now=instant("2026-02-01 00:05")
        )
        writers.post("""
            recorded          source  destination  amount
            2026-01-31 09:00  @world  wallet       2.00 USD
        """)
        writers.open("new")
        writers.execute("UPDATE blnk.transactions SET meta_data = '{}'")
    writers.engine.dispose()
    run = books.finish(run)
    assert books.balance("wallet", at="2026-02-01", known_at=run.run_id) == "10.00"
    assert_proved(books, books.close_day("2026-02-01"), everything=True)


# What was under way or came late --------------------------------------------------------------------------------------


def insert_on(connection: Connection, key: int, effective: str) -> None:
    """A row with a key of its own, of 1.00 from the world to the wallet."""
    connection.execute(
        text(
            "INSERT INTO blnk.transactions (id, transaction_id, reference, source, destination, precise_amount, "
            "precision, currency, status, created_at, effective_date) VALUES (:key, 'txn_key_' || :key, "
            "'key_' || :key, 'bln_world_usd', 'bln_wallet', 100, 100, 'USD', 'APPLIED', '2026-01-31 11:00', "
            "CAST(CAST(:effective AS text) AS timestamp))"
        ),
        {"key": key, "effective": effective},
    )
    for balance, side, sign in (("wallet", "credit", "+"), ("world_usd", "debit", "-")):
        connection.execute(
            text(
                f"UPDATE blnk.balances SET {side}_balance = {side}_balance + 100, balance = balance {sign} 100 "
                f"WHERE balance_id = 'bln_{balance}'"
            )
        )


def reserved_keys(books: Books, count: int) -> list[int]:
    return [books.rows("SELECT nextval('blnk.transactions_id_seq')")[0][0] for _ in range(count)]


def activity_of(books: Books, run: Run, name: str) -> list[tuple[date, bool, int]]:
    return books.rows(
        "SELECT effective_date, is_late, sum(posting_count) FROM ledger_eod.activity WHERE run_id = :run "
        "AND balance_key = (SELECT id FROM blnk.balances WHERE balance_id = :balance) GROUP BY 1, 2 ORDER BY 1",
        run=run.run_id, balance=books.id_of(name),
    )  # fmt: skip


@pytest.mark.parametrize("committed", ["before its pieces", "after it"])
@pytest.mark.parametrize("first", ["close", "interim"])
def test_rows_in_flight_across_it_are_counted_once_by_the_next_close(books: Books, first: str, committed: str) -> None:
    low = reserved_keys(books, 2)  # in the old cluster, below the highest key that its last close saw
    books.post("""
        recorded          source  destination  amount
        2026-01-31 09:00  @world  shop         3.00 USD
    """)
    books.close_day("2026-01-31")
    pretend_restored(books)
    high = reserved_keys(books, 2)
    with books.engine.connect() as writer:
        for key, effective in zip((*low, *high), ("2026-01-29 11:00", "2026-02-02 11:00") * 2, strict=True):
            insert_on(writer, key, effective)
        books.post("""
            recorded          source  destination  amount
            2026-02-01 09:00  @aside  aside        5.00 USD
        """)  # so that the cut lists the other one as running
        if first == "close":
            run = books.open_day("2026-02-01")
        else:
            found = open_interim_at(books, "2026-02-01 12:00")
            assert found is not None
            run = found
        if committed == "before its pieces":
            writer.commit()
        run = books.finish(run)
        writer.commit()
    ours = {*low, *high}
    assert ours.isdisjoint(keys_in(books, "counted", run)) and ours.isdisjoint(pending_in(books, run))
    nights = [run] if first == "close" else [books.close_day("2026-02-01")]
    nights += [books.close_day("2026-02-02"), books.close_day("2026-02-03")]
    counted = [{key: day for key, day in keys_in(books, "counted", night).items() if key in ours} for night in nights]
    late, own = date(2026, 1, 29), date(2026, 2, 2)
    late_keys, own_keys = {low[0]: late, high[0]: late}, {low[1]: own, high[1]: own}
    if first == "close":
        assert counted == [{}, late_keys | own_keys, {}]
        assert activity_of(books, nights[1], "wallet") == [(late, True, 2), (own, False, 2)]
    else:
        assert counted == [late_keys, own_keys, {}]
        assert activity_of(books, nights[0], "wallet") == [(late, True, 2), (date(2026, 2, 1), False, 1)]
        assert activity_of(books, nights[1], "wallet") == [(own, False, 2)]
    for night in nights[1:]:
        assert_proved(books, night, everything=True)
    assert verify(books, "from-genesis").findings == verify(books, "checksums").findings == []


def test_it_names_what_came_late(books: Books) -> None:
    """What the old cluster recorded after its last close, and what was recorded here before the first one."""
    books.post("""
        recorded          effective         source  destination  amount     status
        2026-01-31 09:00  2026-01-29 11:00  @world  wallet        2.00 USD  APPLIED
        2026-01-31 09:00  -                 @world  wallet       40.00 USD  APPLIED
    """)
    pretend_restored(books)
    books.post("""
        recorded          effective         source  destination  amount     status
        2026-01-31 10:00  2026-01-30 11:00  wallet  shop          0.50 USD  INFLIGHT
        2026-01-31 10:00  2025-11-30 11:00  @world  wallet        0.25 USD  APPLIED
        2026-01-31 10:00  -                 @world  wallet       80.00 USD  APPLIED
    """)
    run = books.close_day("2026-01-31")
    with books.engine.connect() as connection:
        (total,) = late_totals(connection, run.run_id)
        arrivals = late_arrivals(connection, run.run_id)
    assert (total.currency, total.balance_count, total.posting_count) == ("USD", 3, 6)
    assert (total.credit_balance, total.debit_balance) == (225, 225)
    assert (total.inflight_credit_balance, total.inflight_debit_balance) == (50, 50)
    named = [(each.balance_id, str(each.effective_date), each.effect, each.inflight_effect) for each in arrivals]
    assert sorted(named) == [
        ("bln_shop", "2026-01-30", 0, 50),
        ("bln_wallet", "2025-11-30", 25, 0), ("bln_wallet", "2026-01-29", 200, 0), ("bln_wallet", "2026-01-30", 0, -50),
        ("bln_world_usd", "2025-11-30", -25, 0), ("bln_world_usd", "2026-01-29", -200, 0),
    ]  # fmt: skip
    assert activity_of(books, run, "wallet") == [
        (date(2025, 11, 30), True, 1), (date(2026, 1, 29), True, 1), (date(2026, 1, 30), True, 1),
        (date(2026, 1, 31), False, 2),
    ]  # fmt: skip
    assert_proved(books, run, everything=True)
    with books.engine.connect() as connection:
        assert late_totals(connection, books.close_day("2026-02-01").run_id) == []
