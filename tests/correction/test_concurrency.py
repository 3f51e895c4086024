"""Corrections while others write: the application, transactions left open, a second corrector, kill -9."""

from __future__ import annotations

import random
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError

from ledger_db.close.runs import newest_certified_close
from ledger_db.correction.corrections import correct_balance, lock_balance, write_correction
from ledger_db.correction.proposals import find_resumable
from ledger_db.correction.recalculation import recalculate
from ledger_db.correction.reconstructions import Reconstruction, find_reconstruction
from ledger_db.errors import StaleFigures, is_transient, sqlstate_of
from ledger_db.server.connections import make_engine
from tests.testing import PROJECT
from tests.testing.blnk_writer import VersionRefusedError, read, transfer
from tests.testing.books import Books, Ledger, instant
from tests.testing.oracle import NOTHING, Figures, add_up, read_rows
from tests.testing.reconstructions import begin, correct, log, propose, results, tamper, verdicts
from tests.testing.verifications import verify

NAMES = ("wallet", "shop", "purse", "till")
CORRECTIONS = 12


@pytest.fixture
def books(ledger: Ledger) -> Books:
    """Four balances and a closed day."""
    books = Books(ledger)
    rows = [f"2026-01-31 09:00  @world  {name}  100.00 USD" for name in NAMES]
    books.post("\n".join(["recorded  source  destination  amount", *rows]))
    books.close_day("2026-01-31")
    return books


def tampered(books: Books, name: str = "wallet", by: int = 500) -> Reconstruction:
    """A row that somebody changed, and its correction, approved and about to be made."""
    tamper(books, name, "credit_balance", by)
    tamper(books, name, "balance", by)
    proposal = propose(books, name)
    begin(books, proposal)
    return proposal


def pay(books: Books, source: str = "wallet", destination: str = "shop", amount: int = 100) -> None:
    """A payment by the application, from reading to commit."""
    names = f"bln_{source}", f"bln_{destination}"
    with books.engine.begin() as connection:
        transfer(connection, read(connection, *names), *names, amount)


def assert_stored_is_proved(books: Books) -> None:
    """Every stored row is what all transactions add up to: credit, debit, inflight, and their differences."""
    with books.engine.connect() as connection:
        proved = add_up(read_rows(connection), before=instant("2099-01-01"), cut=None)
        stored = connection.execute(
            text(
                "SELECT balance_id, credit_balance, debit_balance, inflight_credit_balance, inflight_debit_balance, "
                "balance, inflight_balance FROM blnk.balances"
            )
        ).all()
    for balance_id, credit, debit, inflight_credit, inflight_debit, balance, inflight_balance in stored:
        assert Figures(credit, debit, inflight_credit, inflight_debit) == proved.get(balance_id, NOTHING), balance_id
        assert (balance, inflight_balance) == (credit - debit, inflight_credit - inflight_debit), balance_id


@contextmanager
def meanwhile(work: Callable[[], Any]) -> Iterator[Future[Any]]:
    """Do something in a thread of its own while the block goes on."""
    with ThreadPoolExecutor(1) as pool:
        yield pool.submit(work)


def wait_for_lock(books: Books) -> None:
    """Return when a session waits for a row that another one has locked."""
    deadline = time.monotonic() + 10
    waiting = "SELECT count(*) FROM pg_locks WHERE NOT granted AND locktype IN ('transactionid', 'tuple')"
    while books.rows(waiting) == [(0,)]:
        assert time.monotonic() < deadline, "nobody waits"
        time.sleep(0.01)


# The application writes the same row ----------------------------------------------------------------------------------


def test_writer_with_an_old_version_is_refused_and_the_correction_stays(books: Books) -> None:
    proposal = tampered(books)
    with books.engine.connect() as connection:
        held = read(connection, "bln_wallet", "bln_shop")
    assert correct(books, proposal, "wallet") == "corrected"
    with pytest.raises(VersionRefusedError, match="bln_wallet"), books.engine.begin() as connection:
        transfer(connection, held, "bln_wallet", "bln_shop", 100)
    assert (books.balance("wallet"), books.balance("shop")) == ("100.00", "100.00")
    pay(books)  # and when it has read again
    assert (books.balance("wallet"), books.balance("shop")) == ("99.00", "101.00")
    assert_stored_is_proved(books)


def test_writer_that_waits_for_a_correction_is_refused_when_it_is_done(books: Books) -> None:
    proposal = tampered(books)
    with books.engine.connect() as connection, connection.begin():
        assert correct_balance(connection, proposal.reconstruction_id, "bln_wallet") == "corrected"
        with meanwhile(lambda: pay(books)) as payment:
            wait_for_lock(books)  # it read the row as it was before, and waits to write it
            connection.commit()
            with pytest.raises(VersionRefusedError, match="bln_wallet"):
                payment.result(20)
    assert books.balance("wallet") == "100.00"
    assert_stored_is_proved(books)


def test_correction_on_figures_from_before_a_writer_is_refused(books: Books) -> None:
    tamper(books, "wallet", "credit_balance", 500)
    with books.engine.connect() as connection:
        found = recalculate(connection, "bln_wallet", newest_certified_close(connection))
    pay(books)
    rows = books.stored_rows()
    refused = pytest.raises(StaleFigures, match="bln_wallet was written since it was read")
    with refused, books.engine.begin() as connection:
        lock_balance(connection, "bln_wallet")
        write_correction(connection, found)
    assert books.stored_rows() == rows


def test_correction_waits_for_a_writer_and_counts_what_it_wrote(books: Books) -> None:
    proposal = tampered(books)
    with books.engine.connect() as connection, connection.begin():
        transfer(connection, read(connection, "bln_shop", "bln_wallet"), "bln_wallet", "bln_shop", 100)
        with meanwhile(lambda: correct(books, proposal, "wallet")) as correction:
            wait_for_lock(books)
            connection.commit()
            assert correction.result(20) == "corrected"
    assert (books.balance("wallet"), books.balance("shop")) == ("99.00", "101.00")
    (line,) = log(books)
    assert [line.previous.balance, line.corrected.balance, line.difference] == [10400, 9900, -500]
    assert_stored_is_proved(books)


def test_correction_waits_for_a_writer_that_gives_up(books: Books) -> None:
    proposal = tampered(books)
    with books.engine.connect() as connection, connection.begin() as payment:
        transfer(connection, read(connection, "bln_shop", "bln_wallet"), "bln_wallet", "bln_shop", 100)
        with meanwhile(lambda: correct(books, proposal, "wallet")) as correction:
            wait_for_lock(books)
            payment.rollback()
            assert correction.result(20) == "corrected"
    assert books.balance("wallet") == "100.00"
    assert_stored_is_proved(books)


def test_uncommitted_transaction_is_no_drift_and_nothing_to_correct(books: Books) -> None:
    with books.engine.connect() as connection, connection.begin():
        transfer(connection, read(connection, "bln_shop", "bln_wallet"), "bln_wallet", "bln_shop", 100)
        assert verify(books, "since-close").findings == []
        assert set(verdicts(books, propose(books, "wallet", "shop")).values()) == {"agrees"}
        connection.commit()
    assert set(verdicts(books, propose(books, "wallet", "shop")).values()) == {"agrees"}
    assert log(books) == []


def test_row_that_stays_locked_is_a_transient_error_and_nothing_is_written(books: Books) -> None:
    proposal = tampered(books)
    rows = books.stored_rows()
    with books.engine.connect() as connection, connection.begin():
        transfer(connection, read(connection, "bln_shop", "bln_wallet"), "bln_wallet", "bln_shop", 100)
        with pytest.raises(DBAPIError) as refused, books.engine.begin() as other:
            other.execute(text("SET LOCAL lock_timeout = '100ms'"))
            correct_balance(other, proposal.reconstruction_id, "bln_wallet")
        assert (sqlstate_of(refused.value), is_transient(refused.value)) == ("55P03", True)
        connection.rollback()
    assert (books.stored_rows(), log(books)) == (rows, [])
    assert correct(books, proposal, "wallet") == "corrected"  # the task's next try


def test_readers_and_inserts_go_on_while_a_row_is_corrected(books: Books) -> None:
    proposal = tampered(books)
    with books.engine.connect() as connection, connection.begin():
        assert correct_balance(connection, proposal.reconstruction_id, "bln_wallet") == "corrected"
        with books.engine.begin() as other:
            other.execute(text("SET LOCAL lock_timeout = '100ms'"))
            assert read(other, "bln_wallet")[0].credit == 10500
            other.execute(
                text(
                    "INSERT INTO blnk.transactions (transaction_id, source, destination, amount, precise_amount, "
                    "currency, status, created_at) VALUES ('txn_q', 'bln_wallet', 'bln_shop', 1, 100, 'USD', 'QUEUED', "
                    "now())"
                )
            )


class Payers:
    """Sessions that pay as the application does and try again when they are refused, until they are told to stop."""

    def __init__(self, books: Books, count: int = 4) -> None:
        self.engine = make_engine(books.ledger.url)
        self.stop = threading.Event()
        self.paid = 0
        self.refused = 0
        self.pool = ThreadPoolExecutor(count)
        self.work = [self.pool.submit(self._pay, seed) for seed in range(count)]

    def _pay(self, seed: int) -> None:
        chance = random.Random(seed)  # noqa: S311
        while not self.stop.is_set():
            source, destination = (f"bln_{name}" for name in chance.sample(NAMES, 2))
            try:
                with self.engine.connect() as connection, connection.begin():
                    rows = read(connection, source, destination)
                    time.sleep(chance.random() / 500)  # so that what was read grows old
                    transfer(connection, rows, source, destination, chance.randrange(1, 1000))
                    time.sleep(chance.random() / 500)  # and what is written stays open
                self.paid += 1
            except VersionRefusedError:
                self.refused += 1

    def end(self) -> None:
        self.stop.set()
        for each in self.work:
            each.result(20)
        self.pool.shutdown()
        self.engine.dispose()


def test_corrector_among_four_writers_loses_nothing(books: Books) -> None:
    """Tampered with and corrected again and again: every change is in the log, every payment in the rows."""
    chance = random.Random(22)  # noqa: S311
    planted: list[tuple[str, int]] = []
    payers = Payers(books)
    try:
        deadline = time.monotonic() + 60
        while len(planted) < CORRECTIONS or payers.paid < 50 or not payers.refused:
            assert time.monotonic() < deadline
            name, by = chance.choice(NAMES), chance.choice([-1, 1]) * chance.randrange(1, 10**6)
            books.execute(  # with its version, so that no writer overwrites it unseen
                "UPDATE blnk.balances SET credit_balance = credit_balance + :by, balance = balance + :by, "
                "version = version + 1 WHERE balance_id = :id",
                by=by, id=f"bln_{name}",
            )  # fmt: skip
            planted.append((f"bln_{name}", by))
            proposal = propose(books, *NAMES)
            begin(books, proposal)
            assert {
                result.balance_id: (result.cause, int(result.difference))
                for result in results(books, proposal) if result.verdict == "correct"
            } == {f"bln_{name}": ("tampered_stored_row", -by)}  # fmt: skip
            assert correct(books, proposal, name) == "corrected"
    finally:
        payers.end()
    assert [(line.balance_id, int(-line.difference)) for line in reversed(log(books))] == planted
    assert_stored_is_proved(books)
    assert verify(books, "from-genesis").findings == []


# Two correctors -------------------------------------------------------------------------------------------------------


def test_two_correctors_of_one_reconstruction_correct_once(books: Books) -> None:
    proposal = tampered(books)
    with books.engine.connect() as connection, connection.begin():
        assert correct_balance(connection, proposal.reconstruction_id, "bln_wallet") == "corrected"
        with meanwhile(lambda: correct(books, proposal, "wallet")) as second:
            wait_for_lock(books)
            connection.commit()
            assert second.result(20) == "corrected"
    assert verdicts(books, proposal) == {"bln_wallet": "corrected"}
    assert len(log(books)) == 1
    assert_stored_is_proved(books)


def test_two_reconstructions_of_one_difference_correct_once(books: Books) -> None:
    first = tampered(books)
    second = propose(books, "wallet")
    begin(books, second)
    with books.engine.connect() as connection, connection.begin():
        assert correct_balance(connection, first.reconstruction_id, "bln_wallet") == "corrected"
        with meanwhile(lambda: correct(books, second, "wallet")) as other:
            wait_for_lock(books)
            connection.commit()
            assert other.result(20) == "agrees"
    assert [line.reconstruction_id for line in log(books)] == [first.reconstruction_id]
    assert_stored_is_proved(books)


def test_many_correctors_at_once_correct_once(books: Books) -> None:
    for number in range(5):
        proposal = tampered(books, "wallet", 100 + number)

        def one(_: int, proposal: Reconstruction = proposal) -> str:
            return correct(books, proposal, "wallet")

        with ThreadPoolExecutor(6) as pool:
            assert set(pool.map(one, range(6))) == {"corrected"}
    assert [line.difference for line in log(books)] == [-104, -103, -102, -101, -100]
    assert_stored_is_proved(books)


# Killed ---------------------------------------------------------------------------------------------------------------


def start_correcting(books: Books, flow_run_id: str) -> subprocess.Popen[str]:
    url = books.ledger.url.render_as_string(hide_password=False)
    return subprocess.Popen(
        [sys.executable, "-m", "tests.testing.correct_process", url, flow_run_id],
        stdout=subprocess.PIPE, text=True, cwd=PROJECT,
    )  # fmt: skip


def test_killed_anywhere_the_next_call_corrects_what_is_left(books: Books) -> None:
    names = [f"w{number}" for number in range(16)]
    rows = [f"2026-02-01 09:00  @world  {name}  10.00 USD" for name in names]
    books.post("\n".join(["recorded  source  destination  amount", *rows]))
    for number, name in enumerate(names):
        tamper(books, name, "credit_balance", 100 + number)
    before = dict(books.rows("SELECT balance_id, version FROM blnk.balances WHERE balance_id LIKE 'bln_w_%'"))
    proposal = propose(books, *names, flow_run_id="killed", balance_limit=1)
    begin(books, proposal)
    books.execute(
        "CREATE FUNCTION public.slow() RETURNS trigger LANGUAGE plpgsql AS "
        "'BEGIN PERFORM pg_sleep(0.02); RETURN NEW; END'"
    )
    for table in ("blnk.balances", "ledger_eod.corrections"):  # a kill hits between and inside the statements
        books.execute(
            f"CREATE TRIGGER slow BEFORE INSERT OR UPDATE ON {table} FOR EACH ROW EXECUTE FUNCTION public.slow()"
        )
    chance = random.Random()  # noqa: S311 - anywhere is the point
    progress: list[int] = []
    for _ in range(2):
        with start_correcting(books, "killed") as process:
            assert process.stdout is not None
            assert process.stdout.readline() == "resumed\n"
            process.stdout.readline()
            time.sleep(chance.random() / 10)
            process.kill()
        assert process.returncode == -9
        progress.append(len(log(books)))
    assert progress == sorted(set(progress)) and 0 < progress[-1] < len(names), progress
    with books.engine.connect() as connection:
        assert find_reconstruction(connection, proposal.reconstruction_id).status == "proposed"

    with start_correcting(books, "killed") as last:
        said, _ = last.communicate(timeout=60)
    assert said.split()[-1] == "ended"
    assert {line.balance_id: (int(line.difference), int(line.previous.credit_balance)) for line in log(books)} == {
        f"bln_{name}": (0, 1100 + number) for number, name in enumerate(names)
    }
    assert len(log(books)) == len(names), "each once"
    assert set(verdicts(books, proposal).values()) == {"corrected"}
    versions = dict(books.rows("SELECT balance_id, version FROM blnk.balances WHERE balance_id LIKE 'bln_w_%'"))
    assert {name: versions[name] - before[name] for name in (f"bln_{each}" for each in names)} == {
        f"bln_{name}": 1 for name in names
    }
    assert_stored_is_proved(books)
    with books.engine.connect() as connection:
        assert find_resumable(connection, "killed") is None
