"""One cut, whatever happens around it: writers at work, two triggers at once, kill -9, restarts, a copied database."""

from __future__ import annotations

import random
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, date, datetime
from pathlib import Path

import pytest
from sqlalchemy import URL, Connection, text
from sqlalchemy.exc import DBAPIError

from ledger_db.attach.migrate import migrate
from ledger_db.close.certification import certify_run
from ledger_db.close.cluster import first_foreign_record
from ledger_db.close.driver import count_rows
from ledger_db.close.opening import abandon_run, open_close
from ledger_db.close.runs import Run, find_run, hold_run
from ledger_db.close.snapshots import ensure_partition, plan_key_ranges, write_snapshot_batch
from ledger_db.core.calendar import BusinessCalendar
from ledger_db.core.key_ranges import KeyRange
from ledger_db.errors import (
    BatchFailed,
    ConfigurationError,
    ForeignRecords,
    NotCertified,
    RunNotOpen,
    is_transient,
)
from ledger_db.history.balance_at import balance_at
from ledger_db.server import embedded
from ledger_db.server.connections import make_engine
from ledger_db.settings import get_settings
from ledger_db.verification.discrepancies import list_discrepancies
from ledger_db.verification.sweeps import SCOPES, Scope
from tasks import close as closing
from tests.testing import PROJECT
from tests.testing.books import Books, Ledger, instant, unguarded
from tests.testing.oracle import (
    Figures,
    assert_proved,
    clone,
    difference_by_currency,
    interim,
    open_interim_at,
    snapshots_of,
)
from tests.testing.verifications import causes, verify
from tests.testing.writers import EUR, USD, Writers

Write = Callable[[Connection, int, KeyRange], int]
DAYS = ("2026-01-29", "2026-01-30", "2026-01-31")


def live_batch(connection: Connection, run_id: int, keys: KeyRange) -> int:
    """The mistake this project exists for: a batch that copies the live rows instead of reading the cut."""
    run = find_run(connection, run_id)
    return connection.execute(
        text(
            "INSERT INTO ledger_eod.balance_snapshots (run_id, balance_key, business_date, kind, credit_balance, "
            "debit_balance, inflight_credit_balance, inflight_debit_balance) "
            "SELECT :run_id, id, :day, 'close', credit_balance, debit_balance, inflight_credit_balance, "
            "inflight_debit_balance FROM blnk.balances WHERE id BETWEEN :first AND :last ON CONFLICT DO NOTHING"
        ),
        {"run_id": run_id, "day": run.business_date, "first": keys.first_key, "last": keys.last_key},
    ).rowcount


def write_in_disorder(
    ledger: Ledger, run: Run, write: Write, chance: random.Random, between: Callable[[KeyRange, KeyRange], None]
) -> None:
    """All batches of a run, in parallel and any order; one fails inside its transaction and comes last.

    ``between`` is called after the first batch and before the last one.
    """
    engine = make_engine(ledger.url)
    count_rows(engine, run.run_id)
    with engine.begin() as connection:
        ensure_partition(connection, run.business_date)
        first, *middle, last = plan_key_ranges(connection, run.run_id, batch_size=3)

    def one(keys: KeyRange) -> None:
        time.sleep(chance.random() / 20)
        with engine.begin() as connection:
            assert write(connection, run.run_id, keys) == keys.balance_count

    one(first)
    with pytest.raises(DBAPIError), engine.begin() as connection:
        write(connection, run.run_id, last)
        connection.execute(text("SELECT pg_terminate_backend(pg_backend_pid())"))
    between(first, last)
    chance.shuffle(middle)
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(one, middle))
    one(last)
    engine.dispose()


def opened_books(books: Books) -> Books:
    for name in USD:
        books.open(name)
    for name in EUR:
        books.open(name, "EUR")
    return books


def test_a_close_under_write_load_sums_to_zero_and_every_row_is_the_sum_at_the_cut(books: Books) -> None:
    opened_books(books)
    chance = random.Random(7)  # noqa: S311
    runs: list[Run] = []
    interrupted = 0

    def late_row(first: KeyRange, last: KeyRange) -> None:
        """Effective on the day, committed after the batch on its source and before the one on its destination."""
        books.post("""
            recorded          source  destination  amount
            2026-01-29 00:00  usd0    usd_last     7777777.77 USD
        """)
        del first, last

    books.open("usd_last")  # the highest key: in the last range
    books.open("aside"), books.open("@aside")
    with Writers(books.ledger).at_work() as writers:
        writers.wait_for(60)
        for day in DAYS:
            with books.engine.connect() as connection, connection.begin():
                # open across the cut, so that at least this one is running in it
                books.post_on(connection, """
                    recorded          source  destination  amount
                    2026-01-29 12:00  @aside  aside        1.00 USD
                """)  # fmt: skip
                run = books.open_day(day)
            interrupted += len(run.cut.split(":")[2].split(","))
            writers.wait_for(20)
            before = writers.recorded
            write_in_disorder(books.ledger, run, write_snapshot_batch, chance, late_row)
            with books.engine.begin() as connection:
                run = certify_run(connection, run.run_id)
            assert writers.recorded > before
            runs.append(run)
            assert_proved(books, run)
        writers.wait_for(40)
    assert interrupted >= 3
    late = books.rows("SELECT run_id, count(*) FROM ledger_eod.activity WHERE is_late GROUP BY 1 ORDER BY 1")
    assert [run_id for run_id, _ in late] == [run.run_id for run in runs[1:]]
    for run in runs:  # and it stays so, many transactions later
        assert_proved(books, run)
    with books.engine.connect() as connection:
        for run in runs:
            for balance_id, figures in snapshots_of(connection, run).items():
                answer = balance_at(connection, balance_id, run.closes_at, known_at=run.run_id)
                assert (answer.credit_balance, answer.debit_balance) == figures[:2]


def test_the_same_close_from_the_live_table_does_not_sum_to_zero(books: Books) -> None:
    """The test of the test: if reading live rows passed, the one above would prove nothing."""
    opened_books(books)
    chance = random.Random(11)  # noqa: S311
    differences: list[dict[str, tuple[int, int]]] = []
    with Writers(books.ledger).at_work() as writers:
        writers.wait_for(40)
        for attempt in range(10):  # until the race shows
            run = books.open_day(f"2026-01-{10 + attempt}")
            write_in_disorder(books.ledger, run, live_batch, chance, lambda _first, _last: writers.wait_for(5))
            with books.engine.connect() as connection:
                differences.append(difference_by_currency(connection, run))
            if any(figures != (0, 0) for figures in differences[-1].values()):
                break
            with books.engine.begin() as connection:
                abandon_run(connection, run.run_id)
    assert any(figures != (0, 0) for figures in differences[-1].values()), differences
    with books.engine.begin() as connection, pytest.raises(NotCertified, match="difference"):
        certify_run(connection, run.run_id)


# Two at once, killed, restarted ---------------------------------------------------------------------------------------


def start_close(ledger: Ledger, day: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "tests.testing.close_process", ledger.url.render_as_string(hide_password=False), day],
        stdout=subprocess.PIPE, text=True, cwd=PROJECT,
    )  # fmt: skip


def say_last(process: subprocess.Popen[str]) -> str:
    said, _ = process.communicate(timeout=60)
    assert process.returncode == 0
    return said.split()[-1]


def slow_rows(books: Books, seconds: float) -> None:
    """Make every snapshot row take a while, so that a kill hits inside batches too."""
    books.execute(
        "CREATE FUNCTION public.slow() RETURNS trigger LANGUAGE plpgsql AS "
        f"'BEGIN PERFORM pg_sleep({seconds}); RETURN NEW; END'"
    )
    books.execute(
        "CREATE TRIGGER slow BEFORE INSERT ON ledger_eod.balance_snapshots FOR EACH ROW EXECUTE FUNCTION public.slow()"
    )


def many_balances(books: Books, count: int = 40) -> None:
    rows = [f"2026-01-31 09:{n:02}  @world  w{n}  {n + 1}.00 USD" for n in range(count)]
    books.post("\n".join(["recorded  source  destination  amount", *rows]))


def test_two_processes_at_once_write_each_balance_once(books: Books) -> None:
    many_balances(books)
    with books.engine.begin() as connection:
        ensure_partition(connection, date(2026, 1, 31))
    with books.engine.connect() as blocking, blocking.begin() as block:
        blocking.execute(text("LOCK TABLE ledger_eod.balance_snapshots_2026_01 IN SHARE MODE"))
        with start_close(books.ledger, "2026-01-31") as first:
            assert first.stdout is not None
            while "planned" not in first.stdout.readline():
                pass
            with start_close(books.ledger, "2026-01-31") as second:
                assert say_last(second) == "held-elsewhere"
            block.rollback()
            assert say_last(first) == "certified"
    with start_close(books.ledger, "2026-01-31") as third:
        assert say_last(third) == "certified-already"
    assert books.rows("SELECT count(*), count(DISTINCT balance_key) FROM ledger_eod.balance_snapshots") == [(41, 41)]
    assert books.rows("SELECT count(*) FROM ledger_eod.runs") == [(1,)]


def test_two_callers_without_a_hold_write_each_balance_once(books: Books) -> None:
    """The hold spares work; what guarantees single rows is the database's unique key and lock on the run."""
    many_balances(books)

    def close(_number: int) -> Run:
        engine = make_engine(books.ledger.url)
        try:
            return Books(Ledger(books.ledger.url, engine)).close_day("2026-01-31", batch_size=3)
        except RunNotOpen as done:
            assert "is certified: it takes no more rows" in str(done)
            with engine.begin() as connection:
                return certify_run(connection, 1)
        finally:
            engine.dispose()

    with ThreadPoolExecutor(4) as pool:
        runs = list(pool.map(close, range(4)))
    assert len({(run.run_id, run.cut, run.checksum) for run in runs}) == 1
    assert books.rows("SELECT count(*), sum(posting_count) FROM ledger_eod.activity") == [(41, 80)]
    assert_proved(books, runs[0])


def evidence(books: Books, run: Run) -> list[list[tuple[object, ...]]]:
    """Everything a run wrote, rows and checksum."""
    return [
        books.rows(
            "SELECT * FROM ledger_eod.balance_snapshots WHERE run_id = :run ORDER BY balance_key", run=run.run_id
        ),
        books.rows("SELECT * FROM ledger_eod.activity WHERE run_id = :run ORDER BY balance_key", run=run.run_id),
        books.rows("SELECT * FROM ledger_eod.run_totals WHERE run_id = :run ORDER BY currency", run=run.run_id),
        books.rows("SELECT run_id, cut::text, status, snapshot_count, checksum FROM ledger_eod.runs"),
    ]


def test_killed_anywhere_the_next_call_completes_the_same_run(books: Books) -> None:
    many_balances(books)
    books.close_day("2026-01-30")
    run = books.open_day("2026-01-31")
    books.post("""
        recorded          source  destination  amount
        2026-01-31 10:00  @world  w1           1000.00 USD
    """)  # after the cut: whoever took a new one would count it
    with clone(books.ledger) as undisturbed:
        untouched = Books(undisturbed)
        untouched.close_day("2026-01-31", batch_size=5)
        expected = evidence(untouched, run)

    slow_rows(books, 0.01)
    chance = random.Random()  # noqa: S311 - anywhere is the point
    progress: list[int] = []
    for point in ("opened", "planned", "written", "written"):
        with start_close(books.ledger, "2026-01-31") as process:
            assert process.stdout is not None
            while (said := process.stdout.readline()) and not said.startswith(point):
                assert "held-elsewhere" not in said
            assert said, f"{process.wait()} before it said {point}"
            time.sleep(chance.random() / 20)
            process.kill()
        assert process.returncode == -9
        assert wait_until_free(books, run.run_id) < 10
        ((written,),) = books.rows("SELECT count(*) FROM ledger_eod.balance_snapshots WHERE run_id = :r", r=run.run_id)
        progress.append(written)
        assert books.rows("SELECT status::text FROM ledger_eod.runs WHERE run_id = :r", r=run.run_id) == [("open",)]
    assert progress == sorted(progress)  # nothing that was written is written again
    assert 0 < progress[-1] < 41

    with start_close(books.ledger, "2026-01-31") as last:
        assert say_last(last) == "certified"
    assert evidence(books, run) == expected
    assert_proved(books, run)


def wait_until_free(books: Books, run_id: int) -> float:
    """How long until a killed process's hold is free: its session ends when the server notices."""
    started = time.monotonic()
    while time.monotonic() - started < 15:
        with hold_run(books.engine, run_id) as mine:
            if mine:
                return time.monotonic() - started
        time.sleep(0.02)
    raise AssertionError("a dead process still holds the run")


def test_a_hold_excludes_others_and_is_free_at_once_when_it_ends(books: Books) -> None:
    books.open("wallet")
    run_id = books.open_day("2026-01-31").run_id
    with books.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as watching:
        for _ in range(50):
            with hold_run(books.engine, run_id) as mine:
                assert mine
                with hold_run(books.engine, run_id) as other:
                    assert not other
                with hold_run(books.engine, run_id + 1) as another_run:
                    assert another_run
            # at once, and not when the server has noticed that a session ended
            held = text(
                "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND objid = :run "
                "AND database = (SELECT oid FROM pg_database WHERE datname = current_database())"
            )
            assert watching.scalar(held, {"run": run_id}) == 0


def test_a_hold_whose_session_is_lost_ends_quietly(books: Books) -> None:
    books.open("wallet")
    run_id = books.open_day("2026-01-31").run_id
    with hold_run(books.engine, run_id) as mine:
        assert mine
        books.execute(
            "SELECT pg_terminate_backend(pid, 5000) FROM pg_locks WHERE locktype = 'advisory' AND objid = :run",
            run=run_id,
        )
    with hold_run(books.engine, run_id) as again:
        assert again


@pytest.fixture(scope="module")
def other_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A second cluster, ours to crash and to restore into."""
    folder = tmp_path_factory.mktemp("other-cluster")
    embedded.ensure_server(folder)
    yield folder
    embedded.release(folder)


def test_a_database_crash_in_the_middle_loses_nothing_that_is_not_written_again(
    other_server: Path, own_settings: None
) -> None:
    url = embedded.ensure_server(other_server).url("postgres")
    engine = make_engine(url)
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.execute(text("CREATE DATABASE crash"))
    engine.dispose()
    ledger = Ledger(url.set(database="crash"), make_engine(url.set(database="crash")))
    migrate(ledger.engine)
    books = Books(ledger)
    many_balances(books)
    run = books.open_day("2026-01-31")
    with clone(ledger) as undisturbed:
        untouched = Books(undisturbed)
        untouched.close_day("2026-01-31", batch_size=5)
        expected = evidence(untouched, run)

    count_rows(books.engine, run.run_id)
    with books.engine.begin() as connection:
        ensure_partition(connection, run.business_date)
    with books.engine.begin() as connection:
        ranges = plan_key_ranges(connection, run.run_id, batch_size=5)
    for keys in ranges[:3]:
        with books.engine.begin() as connection:
            write_snapshot_batch(connection, run.run_id, keys)
    with pytest.raises(DBAPIError) as lost, books.engine.begin() as connection:
        write_snapshot_batch(connection, run.run_id, ranges[3])
        embedded._run("pg_ctl", "stop", "-D", str(other_server / "postgres"), "-m", "immediate", folder=other_server)
        write_snapshot_batch(connection, run.run_id, ranges[4])
    assert is_transient(lost.value)

    embedded.ensure_server(other_server)
    resumed = books.close_day("2026-01-31", batch_size=5)
    assert (resumed.run_id, resumed.cut) == (run.run_id, run.cut)
    assert evidence(books, run) == expected
    assert_proved(books, resumed)
    ledger.engine.dispose()


# One bad batch --------------------------------------------------------------------------------------------------------


def test_a_lock_on_the_partition_times_out_names_the_ranges_and_is_transient(
    books: Books, monkeypatch: pytest.MonkeyPatch
) -> None:
    many_balances(books, 5)
    monkeypatch.setenv("LEDGER_LOCK_TIMEOUT_SECONDS", "1")
    get_settings.cache_clear()
    run = books.open_day("2026-01-31")
    count_rows(books.engine, run.run_id)
    ranges = closing.plan_batches.fn(run.run_id, 4)
    with books.engine.connect() as blocking, blocking.begin():
        blocking.execute(text("LOCK TABLE ledger_eod.balance_snapshots_2026_01 IN SHARE MODE"))
        with pytest.raises(BatchFailed) as failed:
            closing.write_snapshots.fn(run.run_id, ranges)
    assert str(failed.value) == (
        f"run {run.run_id} could not write balance keys 1–4: canceling statement due to lock timeout; "
        "balance keys 5–6: canceling statement due to lock timeout"
    )
    assert is_transient(failed.value)
    assert failed.value.written == 0
    assert closing.write_snapshots.fn(run.run_id, ranges) == 6
    assert_proved(books, books.finish(run))


def test_a_poisoned_row_keeps_the_others_and_the_next_call_writes_only_what_is_missing(books: Books) -> None:
    many_balances(books, 9)
    books.execute(
        "CREATE FUNCTION public.poison() RETURNS trigger LANGUAGE plpgsql AS "
        "'BEGIN IF NEW.balance_key = 5 THEN RAISE EXCEPTION ''poisoned''; END IF; RETURN NEW; END'"
    )
    books.execute(
        "CREATE TRIGGER poison BEFORE INSERT ON ledger_eod.balance_snapshots "
        "FOR EACH ROW EXECUTE FUNCTION public.poison()"
    )
    run = books.open_day("2026-01-31")
    count_rows(books.engine, run.run_id)
    ranges = closing.plan_batches.fn(run.run_id, 3)
    with pytest.raises(BatchFailed, match=r"could not write balance keys 4–6: poisoned$") as failed:
        closing.write_snapshots.fn(run.run_id, ranges)
    assert (failed.value.written, is_transient(failed.value)) == (7, False)
    kept = "SELECT balance_key, xmin::text, ctid::text FROM ledger_eod.balance_snapshots ORDER BY 1"
    before = books.rows(kept)
    assert [key for key, *_ in before] == [1, 2, 3, 7, 8, 9, 10]
    with (
        books.engine.begin() as connection,
        pytest.raises(NotCertified, match="3 balances have no snapshot, the first with key 4"),
    ):
        certify_run(connection, run.run_id)

    books.execute("DROP TRIGGER poison ON ledger_eod.balance_snapshots")
    resumed = books.open_day("2026-01-31")
    assert (resumed.run_id, resumed.cut) == (run.run_id, run.cut)
    assert closing.plan_batches.fn(run.run_id, 100) == [KeyRange(4, 6, 3)]
    certified = books.finish(resumed)
    assert [row for row in books.rows(kept) if row[0] not in (4, 5, 6)] == before
    assert_proved(books, certified)


def test_a_balance_that_commits_late_under_a_lower_key_belongs_to_the_next_run(books: Books) -> None:
    """Keys are given before the commit: a key below the run's highest can appear while it is at work, or afterwards."""
    books.open("@world")
    with books.engine.connect() as slow, slow.begin():
        books.open("slow", connection=slow)
        books.open("quick")
        run = books.finish(books.open_day("2026-01-31"))
        slow.commit()
    assert_proved(books, run)
    view = "SELECT balance_id FROM ledger_eod.daily_balances WHERE run_id = :run ORDER BY 1"
    assert books.rows(view, run=run.run_id) == [("bln_quick",), ("bln_world_usd",)]
    following = books.close_day("2026-02-01")
    assert_proved(books, following)
    assert books.rows(view, run=following.run_id) == [("bln_quick",), ("bln_slow",), ("bln_world_usd",)]
    assert books.rows(view, run=run.run_id) == [("bln_quick",), ("bln_world_usd",)]


# Interim runs, running again ------------------------------------------------------------------------------------------


def test_interim_calls_capture_new_balances_later_and_leave_the_others_as_first_taken(books: Books) -> None:
    books.post("""
        recorded          source  destination  amount
        2026-01-31 09:00  @world  wallet       10.00 USD
    """)
    first = interim(books, "2026-01-31 10:00")
    assert_proved(books, first)
    books.post("""
        recorded          source  destination  amount
        2026-01-31 11:00  @world  wallet       1.00 USD
        2026-01-31 11:00  @world  new          2.00 USD
    """)
    second = interim(books, "2026-01-31 12:00")
    with books.engine.connect() as connection:
        assert snapshots_of(connection, first) == {
            "bln_world_usd": Figures(0, 1000, 0, 0), "bln_wallet": Figures(1000, 0, 0, 0),
        }  # fmt: skip
        assert snapshots_of(connection, second) == {"bln_new": Figures(200, 0, 0, 0)}
    assert open_interim_at(books, "2026-01-31 13:00") is None
    close = books.close_day("2026-01-31")  # the official close is not affected
    assert close.base_run_id is None
    assert_proved(books, close)
    after = interim(books, "2026-02-01 10:00")
    assert after.base_run_id == close.run_id
    assert_proved(books, after)


def test_an_interim_run_that_was_not_finished_is_resumed(books: Books) -> None:
    many_balances(books, 5)
    run = open_interim_at(books, "2026-01-31 10:00")
    again = open_interim_at(books, "2026-01-31 11:00")
    assert run is not None and run == again
    assert_proved(books, books.finish(run))


def test_an_interim_of_a_closed_date_knows_what_came_later(books: Books) -> None:
    many_balances(books, 2)
    for day in ("2026-01-31", "2026-02-01", "2026-02-02"):
        books.close_day(day)
    books.post("""
        recorded          source  destination  amount
        2026-01-31 20:00  @world  w0           70.00 USD
    """)
    books.close_day("2026-02-03")
    run = interim(books, "2026-02-04 10:00", business_date="2026-01-31")
    assert_proved(books, run)
    for known_at, amount in (("2026-01-31", "1.00"), ("2026-02-02", "1.00"), ("2026-02-03", "71.00")):
        assert books.balance("w0", at="2026-02-01", known_at=known_at) == amount
    for from_source in (False, True):
        for at in ("2026-01-31 20:00", "2026-02-01", "2026-02-02", "2026-02-04"):
            assert books.balance("w0", at=at, known_at=run.run_id, from_source=from_source) == (
                "1.00" if at == "2026-01-31 20:00" else "71.00"
            )


def test_running_again_with_nothing_new_writes_nothing(books: Books) -> None:
    many_balances(books, 5)
    first = books.close_day("2026-01-31")
    before = evidence(books, first)
    again = books.close_day("2026-01-31")
    assert again == first
    with books.engine.begin() as connection:
        assert certify_run(connection, first.run_id) == first
    assert evidence(books, first) == before
    idle = books.close_day("2026-02-01")  # a quiet day: the same figures
    assert books.rows("SELECT count(*) FROM ledger_eod.activity WHERE run_id = :run", run=idle.run_id) == [(0,)]
    assert idle.checksum == first.checksum
    assert_proved(books, idle)


# A restored copy ------------------------------------------------------------------------------------------------------


def libpq(url: URL) -> str:
    return url.set(drivername="postgresql").render_as_string(hide_password=False)


def restore(books: Books, folder: Path, name: str, dump: Path) -> Books:
    """Dump a database and restore it into the other cluster, with PostgreSQL's own tools."""
    target = embedded.ensure_server(folder).url("postgres")
    engine = make_engine(target)
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.execute(text(f"CREATE DATABASE {name}"))
    engine.dispose()
    copied = target.set(database=name)
    for program, *arguments in (
        ("pg_dump", "-Fc", "-f", str(dump), "-d", libpq(books.ledger.url)),
        ("pg_restore", "--exit-on-error", "--no-owner", "-d", libpq(copied), str(dump)),
    ):
        subprocess.run(
            [str(embedded.binaries() / program), *arguments],
            check=True, timeout=60,
        )  # fmt: skip
    copy = Books(Ledger(copied, make_engine(copied)))
    copy._numbers = books._numbers  # references go on where the original's end
    return copy


def test_a_restored_copy_is_detected_and_its_chain_goes_on(books: Books, other_server: Path, tmp_path: Path) -> None:
    with books.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        # transaction ids well ahead of the other cluster's
        connection.execute(
            text("DO $$ BEGIN FOR n IN 1..3000 LOOP PERFORM pg_current_xact_id(); COMMIT; END LOOP; END $$")
        )
    many_balances(books, 5)
    old = books.close_day("2026-01-31")
    unfinished = books.open_day("2026-02-01")
    count_rows(books.engine, unfinished.run_id)

    copied = restore(books, other_server, "copy", tmp_path / "dump")
    copied.post("""
        recorded          effective         source  destination  amount
        2026-02-01 09:00  2026-01-15 09:00  @world  w0           500.00 USD
        2026-02-01 09:00  -                 @world  w1             3.00 USD
    """)
    ((count, both_long_known),) = copied.rows(
        "SELECT count(recorded_xid), "
        "bool_and(pg_visible_in_snapshot(recorded_xid, (SELECT cut FROM ledger_eod.runs WHERE run_id = :run))) "
        "FROM blnk.transactions WHERE created_at >= '2026-02-01'",
        run=old.run_id,
    )
    # the trap: judged by the old cut, both rows were known before and would never be counted
    assert (count, both_long_known) == (2, True)

    # what was known then is told by keys; what is new here is known now, also before the copy's first close
    assert copied.balance("w0", at="2026-02-01") == copied.balance("w0", at="2026-02-01", from_source=True) == "501.00"
    for from_source in (False, True):
        assert copied.balance("w0", at="2026-02-01", known_at="2026-01-31", from_source=from_source) == "1.00"

    definition = "SELECT attname, attnum FROM pg_attribute WHERE attrelid = 'blnk.transactions'::regclass ORDER BY 2"
    before = copied.rows(definition)
    run = copied.close_day("2026-02-01")
    assert run.run_id != unfinished.run_id
    assert (run.base_run_id, run.genesis_run_id) == (old.run_id, old.genesis_run_id)
    assert copied.rows("SELECT status::text FROM ledger_eod.runs ORDER BY run_id") == [
        ("certified",), ("abandoned",), ("certified",),
    ]  # fmt: skip
    assert_proved(copied, run, everything=True)
    assert copied.rows(definition) == before, "nothing of the ledger is altered"
    copied.execute("UPDATE blnk.transactions SET meta_data = '{\"kept\": true}'")  # its triggers still work
    copied.post("""
        recorded          effective         source  destination  amount
        2026-02-02 09:00  2026-01-20 09:00  @world  w0           7.00 USD
    """)
    following = copied.close_day("2026-02-02")
    assert following.base_run_id == run.run_id
    assert_proved(copied, following, everything=True)
    for from_source in (False, True):
        for at, amount in (("2026-01-16", "500.00"), ("2026-02-01", "508.00"), ("2026-02-03", "508.00")):
            assert copied.balance("w0", at=at, from_source=from_source) == amount
        assert copied.balance("w0", at="2026-02-03", known_at="2026-02-01", from_source=from_source) == "501.00"
        assert copied.balance("w0", at="2026-02-01", known_at="2026-01-31", from_source=from_source) == "1.00"
    with copied.engine.begin() as connection:  # the evidence from before stays
        assert open_close(
            connection, business_date=old.business_date, calendar=closing.calendar(), now=instant("2026-03-01")
        ) == old  # fmt: skip
    copied.engine.dispose()


def test_an_interim_run_may_be_the_first_in_a_restored_copy(books: Books, other_server: Path, tmp_path: Path) -> None:
    many_balances(books, 3)
    closed = books.close_day("2026-01-31")
    copied = restore(books, other_server, "copy_interim", tmp_path / "dump")
    copied.post("""
        recorded          effective         source  destination  amount
        2026-02-01 09:00  2026-01-15 09:00  @world  w0           500.00 USD
    """)
    first = interim(copied, "2026-02-01 10:00")
    assert first.base_run_id == closed.run_id
    assert_proved(copied, first, everything=True)
    close = copied.close_day("2026-02-01")
    assert close.base_run_id == closed.run_id
    assert_proved(copied, close, everything=True)
    assert_proved(copied, copied.close_day("2026-02-02"), everything=True)
    copied.engine.dispose()


def open_discrepancies(books: Books) -> set[tuple[str, str]]:
    with books.engine.connect() as connection:
        return {(each.cause, each.subject) for each in list_discrepancies(connection)}


def test_a_restored_copy_is_verified_as_the_original_was(books: Books, other_server: Path, tmp_path: Path) -> None:
    books.post("""
        recorded          source  destination  amount     reference
        2026-01-29 09:00  @world  wallet       12.00 USD  moved
        2026-01-30 09:00  @world  shop          2.00 USD  -
    """)
    for day in ("2026-01-29", "2026-01-30"):
        books.close_day(day)
    unguarded(
        books, "blnk.transactions",
        "UPDATE blnk.transactions SET effective_date = '2026-01-30 09:00' WHERE transaction_id = 'txn_moved'",
    )  # fmt: skip
    unguarded(
        books, "ledger_eod.balance_snapshots",
        "UPDATE ledger_eod.balance_snapshots SET credit_balance = credit_balance + 3 "
        "WHERE business_date = '2026-01-30' "
        "AND balance_key = (SELECT id FROM blnk.balances WHERE balance_id = 'bln_shop')",
    )  # fmt: skip
    for scope in SCOPES:
        verify(books, scope)
    found = open_discrepancies(books)
    assert ("row_edited_or_removed", "bln_shop") in found
    assert {on for _, subject in found for on in subject.split(" on ")[1:]} == {"2026-01-29", "2026-01-30"}

    copied = restore(books, other_server, "copy_verified", tmp_path / "dump")
    copied.post("source  destination  amount\n@world  wallet  1.00 USD")  # recorded under a number long in the old cuts
    for scope in SCOPES:
        sweep = verify(copied, scope)
        assert sweep.verification.closed_count == 0
    assert open_discrepancies(copied) == found, "the closed past is checked as before"
    stopped = copied.open_day("2026-01-31")
    with pytest.raises(NotCertified):  # the altered snapshot stops the chain here, too
        copied.finish(stopped)
    with copied.engine.begin() as connection:
        abandon_run(connection, stopped.run_id)
    unguarded(
        copied, "ledger_eod.balance_snapshots",
        "UPDATE ledger_eod.balance_snapshots SET credit_balance = credit_balance - 3 "
        "WHERE business_date = '2026-01-30' "
        "AND balance_key = (SELECT id FROM blnk.balances WHERE balance_id = 'bln_shop')",
    )  # fmt: skip
    run = copied.close_day("2026-01-31")
    for scope in SCOPES:
        verify(copied, scope)
    assert open_discrepancies(copied) == {each for each in found if each[1].endswith("2026-01-29")}
    copied.execute("UPDATE blnk.balances SET credit_balance = credit_balance + 5 WHERE balance_id = 'bln_shop'")
    assert causes(verify(copied, "since-close").found) == {("tampered_stored_row", "bln_shop")}
    assert run.base_run_id is not None
    copied.engine.dispose()


def copy_in(books: Books, reference: str, *, key: int | None = None, xid: int = 900_000_000) -> None:
    """A transaction as a dump of another cluster brings it: with a transaction id that is not reached here."""
    with books.engine.begin() as connection:
        connection.execute(
            text(
                "INSERT INTO blnk.transactions (id, transaction_id, source, destination, reference, precise_amount, "
                "currency, status, created_at, recorded_xid) SELECT "
                "COALESCE(:key, nextval('blnk.transactions_id_seq')), 'txn_' || :reference, source, destination, "
                ":reference, precise_amount, currency, status, created_at, CAST(CAST(:xid AS text) AS xid8) "
                "FROM blnk.transactions ORDER BY id LIMIT 1"
            ),
            {"reference": reference, "key": key, "xid": xid},
        )


def balances_of(books: Books, run: Run) -> list[tuple[object, ...]]:
    return books.rows(
        "SELECT balance_id, balance FROM ledger_eod.daily_balances WHERE run_id = :run ORDER BY 1", run=run.run_id
    )


def test_ids_of_another_cluster_count_where_they_were_there_before_the_first_close(books: Books) -> None:
    books.post("""
        recorded          source  destination  amount
        2026-01-31 09:00  @world  wallet       10.00 USD
    """)
    copy_in(books, "copied")
    run = books.close_day("2026-01-31")
    assert balances_of(books, run) == [("bln_wallet", 2000), ("bln_world_usd", -2000)]
    assert books.rows("SELECT count(*) FROM blnk.transactions WHERE recorded_xid = '900000000'") == [(1,)]
    assert balances_of(books, books.close_day("2026-02-01")) == [("bln_wallet", 2000), ("bln_world_usd", -2000)]


def test_ids_of_another_cluster_are_refused_once_days_are_closed(books: Books) -> None:
    books.post("""
        recorded          source  destination  amount
        2026-01-31 09:00  @world  wallet       10.00 USD
    """)
    books.close_day("2026-01-31")
    copy_in(books, "copied")
    with pytest.raises(ForeignRecords, match="txn_copied says it was recorded by database transaction 900000000"):
        books.open_day("2026-02-01")
    with books.engine.begin() as connection:
        connection.execute(text("SET LOCAL session_replication_role = replica"))  # the own copy refuses edits
        connection.execute(
            text("UPDATE blnk.transactions SET recorded_xid = DEFAULT WHERE recorded_xid >= '900000000'")
        )
    february = books.close_day("2026-02-01")
    assert balances_of(books, february) == [("bln_wallet", 2000), ("bln_world_usd", -2000)]


def test_where_old_rows_have_higher_ids_one_that_is_copied_in_later_is_told_by_its_key(books: Books) -> None:
    """As in a restored copy: its rows say 900000000, and 500000000 is between this cluster's own ids and theirs."""
    books.post("""
        recorded          source  destination  amount
        2026-01-31 09:00  @world  wallet       10.00 USD
    """)
    books.execute("SELECT setval('blnk.transactions_id_seq', 10)")
    copy_in(books, "brought")
    books.close_day("2026-01-31")
    assert verify(books, "from-genesis").found != []  # of stored rows, which the copies did not move
    copy_in(books, "low", key=5, xid=500_000_000)
    low = [each for each in verify(books, "from-genesis").found if each.cause == "never_counted"]
    assert [each.transaction_id for each in low] == ["txn_low"]
    copy_in(books, "copied", xid=500_000_000)
    refused = "txn_copied says it was recorded by database transaction 500000000.* is above 11"
    with pytest.raises(ForeignRecords, match=refused):
        books.open_day("2026-02-01")
    scopes: tuple[Scope, ...] = ("since-close", "from-genesis")
    for scope in scopes:
        with pytest.raises(ForeignRecords, match=refused):
            verify(books, scope)
    assert verify(books, "checksums").findings == []


def test_before_the_first_run_in_a_cluster_no_id_is_foreign(books: Books) -> None:
    books.post("""
        recorded          source  destination  amount
        2026-01-31 09:00  @world  wallet       10.00 USD
    """)
    copy_in(books, "brought")
    with books.engine.connect() as connection:
        assert first_foreign_record(connection) is None


def test_a_run_is_opened_under_read_committed_whatever_the_database_has_as_its_default(books: Books) -> None:
    books.open("wallet")
    books.execute(f"ALTER DATABASE \"{books.engine.url.database}\" SET default_transaction_isolation = 'serializable'")
    books.engine.dispose()
    assert books.close_day("2026-01-31").certified
    with (
        books.engine.connect().execution_options(isolation_level="REPEATABLE READ") as connection,
        pytest.raises(ConfigurationError, match="this transaction is repeatable read"),
    ):
        open_close(
            connection, business_date=date(2026, 2, 1), calendar=BusinessCalendar(),
            now=datetime(2026, 2, 2, 1, tzinfo=UTC),
        )  # fmt: skip
