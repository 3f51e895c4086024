"""Pieces of one close: counted at once, with balances that change in between, and after a kill only those missing."""

from __future__ import annotations

import random
import time
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from typing import Any

import pytest
from sqlalchemy import text

from ledger_db.close.counting import count_piece, plan_pieces
from ledger_db.close.runs import Run
from ledger_db.server.connections import make_engine
from ledger_db.settings import get_settings
from tests.close.test_consistency import say_last, start_close, wait_until_free
from tests.testing.books import Books
from tests.testing.oracle import assert_proved, clone
from tests.testing.verifications import causes, verify

NEW = ("a", "b", "c", "d")


@pytest.fixture
def opened(books: Books) -> tuple[Books, Run]:
    """A close on a closed day, in four pieces; balances are new, and each piece names them in an order of its own."""
    books.post("recorded  source  destination  amount\n2026-01-30 09:00  @world  wallet  100.00 USD")
    books.close_day("2026-01-30")
    orders = [NEW, NEW[::-1], ("c", "a", "d", "b"), ("b", "d", "a", "c")]
    rows = [
        f"2026-01-31 09:0{piece}  {source}  {destination}  1.00 USD"
        for piece, order in enumerate(orders)
        for source, destination in (("wallet", order[0]), *pairwise(order))
    ]
    books.post("\n".join(["recorded  source  destination  amount", *rows]))
    run = books.open_day("2026-01-31")
    with books.engine.begin() as connection:
        pieces = plan_pieces(connection, run.run_id, piece_size=4)
    assert [piece.work for piece in pieces] == ["new"] * 4
    return books, run


def closed(books: Books, run: Run) -> list[tuple[Any, ...]]:
    return books.rows(
        "SELECT balance_id, currency, balance FROM ledger_eod.daily_balances WHERE run_id = :run ORDER BY balance_id",
        run=run.run_id,
    )


FIGURES = [
    ("bln_a", "USD", 100), ("bln_b", "USD", 100), ("bln_c", "USD", 100), ("bln_d", "USD", 100),
    ("bln_wallet", "USD", 9600), ("bln_world_usd", "USD", -10000),
]  # fmt: skip


def test_a_piece_does_not_wait_for_another_that_has_the_same_new_balances(opened: tuple[Books, Run]) -> None:
    books, run = opened
    with books.engine.connect() as first, books.engine.connect() as second:
        for connection in (first, second):
            connection.execute(text("SET LOCAL lock_timeout = '500ms'"))
        count_piece(first, run.run_id, 1)
        count_piece(second, run.run_id, 2)
        count_piece(first, run.run_id, 4)
        count_piece(second, run.run_id, 3)
        second.commit()
        first.commit()
    run = books.finish(run)
    assert closed(books, run) == FIGURES
    assert_proved(books, run)


def test_pieces_with_the_same_new_balances_are_counted_at_once(opened: tuple[Books, Run]) -> None:
    books, run = opened
    engine = make_engine(books.ledger.url)

    def count(piece: int) -> None:
        with engine.begin() as connection:
            count_piece(connection, run.run_id, piece)

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(count, (1, 2, 3, 4, 4, 3, 2, 1)))
    engine.dispose()
    run = books.finish(run)
    assert closed(books, run) == FIGURES
    captured = "SELECT balance_id, first_run_id FROM ledger_eod.captured_balances WHERE first_run_id = :run ORDER BY 1"
    assert books.rows(captured, run=run.run_id) == [(f"bln_{name}", run.run_id) for name in NEW]


@pytest.mark.parametrize("name", ["a", "wallet"])
def test_a_currency_that_changes_between_two_pieces_is_the_one_that_was_captured(
    opened: tuple[Books, Run], name: str
) -> None:
    """Of a new balance, and of one that the base knows."""
    books, run = opened
    for piece in (1, 2):
        with books.engine.begin() as connection:
            count_piece(connection, run.run_id, piece)
    books.execute(f"UPDATE blnk.balances SET currency = 'EUR' WHERE balance_id = 'bln_{name}'")
    run = books.finish(run)

    assert closed(books, run) == FIGURES
    assert books.rows("SELECT currency FROM ledger_eod.run_totals WHERE run_id = :run", run=run.run_id) == [("USD",)]
    assert books.rows("SELECT * FROM ledger_eod.run_exceptions") == []
    sunday = books.close_day("2026-02-01")
    assert closed(books, sunday) == FIGURES
    assert ("currency_changed", f"bln_{name}") in causes(verify(books, "since-close").found)


# Killed between pieces ------------------------------------------------------------------------------------------------


@pytest.fixture
def pieces_of_two(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also of the processes that a test starts."""
    monkeypatch.setenv("LEDGER_PIECE_SIZE", "2")
    get_settings.cache_clear()


def evidence(books: Books, run: Run) -> list[list[tuple[Any, ...]]]:
    """What a run counted and certified, row by row."""
    return [
        books.rows(f"SELECT {columns} FROM ledger_eod.{table} WHERE run_id = :run ORDER BY 1, 2, 3, 4", run=run.run_id)
        for table, columns in (
            ("activity", "piece, balance_key, effective_date, activity.*"),
            ("run_keys", "piece, key_set, effective_date, block, CAST(keys AS text)"),
            ("row_digests", "piece, effective_date, digest, posted_amount"),
            ("run_pieces", "piece, CAST(work AS text), first_key, last_key, counted_count, pending_count"),
            ("balance_snapshots", "balance_key, balance_snapshots.*"),
            ("runs", "CAST(cut AS text), CAST(status AS text), snapshot_count, checksum"),
        )
    ]


def done(books: Books, run: Run) -> dict[int, Any]:
    """The pieces that are done, with when, and which database transaction wrote their activity."""
    return {
        piece: rest
        for piece, *rest in books.rows(
            "SELECT piece, done_at, (SELECT array_agg(DISTINCT CAST(activity.xmin AS text)) FROM ledger_eod.activity "
            "WHERE (activity.run_id, activity.piece) = (run_pieces.run_id, run_pieces.piece)) "
            "FROM ledger_eod.run_pieces WHERE run_id = :run AND done_at IS NOT NULL",
            run=run.run_id,
        )
    }


def test_killed_between_pieces_the_next_process_counts_only_the_missing_ones(pieces_of_two: None, books: Books) -> None:
    header = "recorded  effective  source  destination  amount  status  reference  parent"
    rows = [
        f"2026-01-30 09:{n:02}  {later}  @world  w{n % 5}  {n + 1}.00 USD  APPLIED  a{n}  -"
        for n, later in enumerate(["-", "2026-01-31 09:00", "2026-01-31 10:00"] * 4)
    ]
    books.post("\n".join([header, *rows, "2026-01-30 10:00  -  w1  w2  2.00 USD  INFLIGHT  hold  -"]))
    books.close_day("2026-01-30")
    rows = [f"2026-01-31 09:{n:02}  -  @world  w{n % 7}  {n + 1}.00 USD  APPLIED  b{n}  -" for n in range(15)]
    books.post("\n".join([header, *rows, "2026-01-31 10:00  -  w1  w2  2.00 USD  VOID  void  hold"]))
    run = books.open_day("2026-01-31")
    with clone(books.ledger) as undisturbed:
        untouched = Books(undisturbed)
        untouched.close_day("2026-01-31", batch_size=5)
        expected = evidence(untouched, run)

    books.execute(
        "CREATE FUNCTION public.slow() RETURNS trigger LANGUAGE plpgsql AS "
        "'BEGIN PERFORM pg_sleep(0.05); RETURN NEW; END'"
    )
    books.execute("CREATE TRIGGER slow BEFORE UPDATE ON ledger_eod.run_pieces FOR EACH ROW EXECUTE FUNCTION slow()")
    chance = random.Random()  # noqa: S311 - anywhere is the point
    before: dict[int, Any] = {}
    for _ in range(3):
        with start_close(books.ledger, "2026-01-31") as process:
            assert process.stdout is not None
            said = [process.stdout.readline() for _ in range(3)]
            assert [line.partition("-")[0] for line in said] == ["opened", "counted", "counted"]
            assert before.keys().isdisjoint(int(line.partition("-")[2]) for line in said[1:])
            time.sleep(chance.random() / 20)
            process.kill()
        assert wait_until_free(books, run.run_id) < 10
        after = done(books, run)
        assert len(after) >= len(before) + 2
        assert {piece: after[piece] for piece in before} == before
        before = after
    ((planned,),) = books.rows("SELECT count(*) FROM ledger_eod.run_pieces WHERE run_id = :run", run=run.run_id)
    assert len(before) < planned

    with start_close(books.ledger, "2026-01-31") as last:
        assert say_last(last) == "certified"
    after = done(books, run)
    assert {piece: after[piece] for piece in before} == before
    assert evidence(books, run) == expected
    assert_proved(books, run)
