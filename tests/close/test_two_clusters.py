"""A ledger that moves into another cluster, really: by dump and restore, and by ``pg_upgrade``; what was closed stays.

The older cluster is one of every version whose programs are here; the newer one is the embedded server's.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

import pytest

from ledger_db.attach.migrate import migrate
from ledger_db.close.preparing import prepare_close
from ledger_db.core.calendar import BusinessCalendar
from ledger_db.verification.opening_balances import declare_opening_balance
from tests.testing.books import Books
from tests.testing.clusters import Cluster, ledger_on, remove, versions_to_come_from
from tests.testing.oracle import assert_proved
from tests.testing.verifications import verify

NEWEST = 18
Move = Callable[[Cluster, Cluster], None]


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder with a short path, which the server's user can enter: sockets lie in it."""
    made = Path(mkdtemp(prefix="eod-clusters-"))
    made.chmod(0o755)
    yield made
    remove(made)


def dump_and_restore(older: Cluster, newer: Cluster) -> None:
    with older.running(), newer.running():
        newer.load(older.dump(newer))


def upgrade(older: Cluster, newer: Cluster) -> None:
    newer.upgrade_from(older)


@contextmanager
def books_of(cluster: Cluster) -> Iterator[Books]:
    with ExitStack() as stack:
        yield Books(stack.enter_context(ledger_on(stack.enter_context(cluster.running()))))


@pytest.mark.parametrize("move", [dump_and_restore, upgrade])
@pytest.mark.parametrize("version", versions_to_come_from())
def test_a_ledger_goes_on_where_it_was(folder: Path, version: int, move: Move) -> None:
    older, newer = Cluster.make(version, folder / "older"), Cluster.make(NEWEST, folder / "newer")
    with books_of(older) as books:
        reserved = before(books)
        said = answers(books)
        older.without_column_versions()
    move(older, newer)
    with books_of(newer) as books:
        after(books, reserved, said)


def test_a_ledger_that_was_elsewhere_meanwhile_is_told_from_the_one_that_left(folder: Path) -> None:
    # rows that were recorded elsewhere have that cluster's numbers, which say nothing where it comes back to
    home, away = Cluster.make(NEWEST, folder / "home"), Cluster.make(NEWEST, folder / "away")
    with books_of(home) as books:
        migrate(books.engine)
        use_up_numbers(books, 5_000)
        for name in ("@world", "wallet"):
            books.open(name)
        ((reserved,),) = books.rows("SELECT nextval(pg_get_serial_sequence('blnk.transactions', 'id'))")
        books.post("""
            recorded          source  destination  amount      reference
            2026-01-28 09:00  @world  wallet       100.00 USD  first
        """)
        books.close_day("2026-01-28")
    dump_and_restore(home, away)
    with books_of(away) as books:
        books.insert(
            id=reserved, source=books.id_of("@world"), destination="bln_wallet", precise_amount=1600, amount=16,
            created_at="2026-01-29 20:00", reference="elsewhere",
        )  # fmt: skip
        assert books.rows(
            "SELECT recorded_xid < (SELECT min(pg_snapshot_xmin(cut)) FROM ledger_eod.runs) FROM blnk.transactions "
            "WHERE reference = 'elsewhere'"
        ) == [(True,)]
    with home.running():
        home.drop()
    dump_and_restore(away, home)
    with books_of(home) as books:
        run = books.close_day("2026-01-29")
        assert_proved(books, run)
        assert keys_of(books, run.run_id) == [reserved]
        assert books.balance("wallet", at="2026-01-30") == "116.00"
        for scope in ("checksums", "since-close", "from-genesis"):
            assert [each for each in verify(books, scope).found if each.cause != "duplicate_reference"] == []


def use_up_numbers(books: Books, count: int) -> None:
    """Let a cluster give that many transaction ids."""
    with books.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.exec_driver_sql(
            f"DO $$ BEGIN FOR i IN 1..{count} LOOP PERFORM pg_current_xact_id(); COMMIT; END LOOP; END $$"
        )


def before(books: Books) -> list[int]:
    """Two closes, one that is open, one day that is prepared, and keys that were taken and not used."""
    migrate(books.engine)
    for name in ("@world", "wallet", "shop", "declared"):
        books.open(name)
    books.execute("UPDATE blnk.balances SET balance = 700, credit_balance = 700 WHERE balance_id = 'bln_declared'")
    with books.engine.begin() as connection:
        declare_opening_balance(connection, "bln_declared", declared_by="Ada", reason="taken over")
    books.post("""
        recorded          effective         source  destination  amount     reference  status    parent
        2026-01-28 09:00  -                 @world  wallet       100.00 USD  first      APPLIED   -
        2026-01-28 10:00  -                 wallet  shop           5.00 USD  hold       INFLIGHT  -
        2026-01-28 11:00  2026-02-01 09:00  wallet  shop           7.00 USD  future     APPLIED   -
    """)
    books.close_day("2026-01-28")
    books.post("""
        recorded          effective         source  destination  amount    reference
        2026-01-29 09:00  -                 @world  wallet       1.00 USD  second
        2026-01-29 09:00  2026-01-28 23:00  @world  wallet       2.00 USD  late
    """)
    books.close_day("2026-01-29")
    sequence = "SELECT nextval(pg_get_serial_sequence('blnk.transactions', 'id'))"
    reserved = [books.rows(sequence)[0][0] for _ in range(3)]
    books.post("""
        recorded          source  destination  amount    reference
        2026-01-30 09:00  @world  wallet       4.00 USD  third
    """)
    books.fill_part()
    now = datetime(2026, 1, 30, 12, tzinfo=UTC)
    prepare_close(books.engine, calendar=BusinessCalendar(), now=now, writers_seconds=0)
    books.open_day("2026-01-30")  # and the cluster goes away
    return reserved


def after(books: Books, reserved: list[int], said: dict[str, Any]) -> None:
    assert answers(books) == said
    # before any run has seen the new cluster: a payment, and a row under a key that was taken in the old one
    books.post("""
        recorded          source  destination  amount    reference
        2026-01-30 20:00  @world  wallet       8.00 USD  fourth
    """)
    books.insert(
        id=reserved[0], source=books.id_of("@world"), destination="bln_wallet", precise_amount=1600, amount=16,
        created_at="2026-01-30 20:01", reference="reserved before",
    )  # fmt: skip
    run = books.close_day("2026-01-30")
    assert_proved(books, run)
    assert books.rows("SELECT work::text FROM ledger_eod.run_pieces WHERE run_id = :run", run=run.run_id) != []
    assert books.rows("SELECT status::text, count(*) FROM ledger_eod.runs GROUP BY 1 ORDER BY 1") == [
        ("abandoned", 2),  # the open close and the preparation: their cuts mean nothing here
        ("certified", 3),
    ]
    # and a row under a key that was taken in the old cluster, committed after the first run in the new one
    books.insert(
        id=reserved[1], source=books.id_of("@world"), destination="bln_wallet", precise_amount=3200, amount=32,
        created_at="2026-01-30 20:02", reference="reserved after",
    )  # fmt: skip
    last = books.close_day("2026-02-01")
    assert_proved(books, last)
    every = {key for (key,) in books.rows("SELECT id FROM blnk.transactions")}
    counted = [
        key
        for (run_id,) in books.rows("SELECT run_id FROM ledger_eod.runs WHERE status = 'certified'")
        for key in keys_of(books, run_id)
    ]
    assert sorted(counted) == sorted(every)
    assert books.balance("wallet", at="2026-02-02") == "156.00"
    assert books.balance("wallet", at="2026-02-02", from_source=True) == "156.00"
    for question, answer in answers(books, now=False).items():
        assert answer == said[question]
    for scope in ("checksums", "since-close", "from-genesis"):
        assert [each for each in verify(books, scope).found if each.cause != "duplicate_reference"] == []


def keys_of(books: Books, run_id: int) -> list[int]:
    rows = books.rows(
        "SELECT generate_series(lower(span), upper(span) - 1) FROM ledger_eod.run_keys, unnest(keys) AS span "
        "WHERE run_id = :run AND key_set = 'counted'",
        run=run_id,
    )
    return [key for (key,) in rows]


def answers(books: Books, *, now: bool = True) -> dict[str, Any]:
    """What history says of the closed days: as known at each close, and as known now."""
    said: dict[str, Any] = {}
    for name in ("wallet", "shop", "declared"):
        for at in ("2026-01-28 12:00", "2026-01-29", "2026-01-29 12:00", "2026-01-30"):
            for known in ("2026-01-28", "2026-01-29", *([None] if now else [])):
                if known is not None and at > f"{known} 24":
                    continue
                said[f"{name} {at} {known}"] = (
                    books.balance(name, at=at, known_at=known), books.inflight(name, at=at, known_at=known),
                )  # fmt: skip
    return said
