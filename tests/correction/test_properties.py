"""Generated histories and tampering: found exactly, repaired exactly, once, and proved by an oracle of its own."""

from __future__ import annotations

from contextlib import contextmanager
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import URL

from ledger_db.core.amounts import AMOUNT_COLUMNS
from tests.testing.books import Books, instant
from tests.testing.databases import database_of
from tests.testing.histories import CURRENCIES, History, nights, play
from tests.testing.oracle import NOTHING, Figures, add_up, read_rows
from tests.testing.reconstructions import log, reconstruct
from tests.testing.verifications import verify

NAMES = [*CURRENCIES, "x", "y"]
changes = st.one_of(st.integers(-500, 500), st.integers(-(2**90), 2**90)).filter(bool)
tamperings = st.dictionaries(
    st.sampled_from(NAMES),
    st.dictionaries(st.sampled_from(AMOUNT_COLUMNS), changes, min_size=1),
    min_size=1,
    max_size=5,
)


def stored(books: Books) -> dict[str, tuple[Figures, int, int]]:
    """Every stored row: its four parts, balance, inflight balance."""
    rows = books.rows(
        "SELECT balance_id, credit_balance, debit_balance, inflight_credit_balance, inflight_debit_balance, balance, "
        "inflight_balance FROM blnk.balances"
    )
    return {row[0]: (Figures(*map(int, row[1:5])), int(row[5]), int(row[6])) for row in rows}


def proved(books: Books) -> dict[str, tuple[Figures, int, int]]:
    """What all transactions add up to, by the oracle."""
    with books.engine.connect() as connection:
        figures = add_up(read_rows(connection), before=instant("2099-01-01"), cut=None)
    return {
        balance_id: (each, each.credit - each.debit, each.inflight_credit - each.inflight_debit)
        for balance_id in (f"bln_{name}" for name in NAMES)
        for each in [figures.get(balance_id, NOTHING)]
    }


@given(written=st.lists(nights, min_size=1, max_size=3), tampering=tamperings)
@settings(max_examples=5, deadline=None, database=None, suppress_health_check=list(HealthCheck), derandomize=True)
def test_what_was_tampered_with_is_found_and_repaired_and_nothing_else(
    server_url: URL, template_name: str, written: list[Any], tampering: dict[str, dict[str, int]]
) -> None:
    with contextmanager(database_of)(server_url, template_name) as ledger:
        books = Books(ledger)
        for name in NAMES:
            books.open(name, CURRENCIES.get(name, "USD"))
        history = History(books)
        play(history, written)
        history.end()
        assert stored(books) == proved(books)
        transactions = books.rows("SELECT * FROM blnk.transactions ORDER BY id")
        untouched = {row[1]: row for row in books.stored_rows()}

        for name, by in tampering.items():
            changed = ", ".join(f"{column} = {column} + {amount}" for column, amount in by.items())
            books.execute(f"UPDATE blnk.balances SET {changed} WHERE balance_id = 'bln_{name}'")
        expected = {f"bln_{name}" for name in tampering}
        assert {each.balance_id for each in verify(books, "since-close", batch_size=9).found} == expected
        assert {each.balance_id for each in verify(books, "from-genesis", batch_size=9).found} == expected

        after = reconstruct(books, selection="discrepancies")

        assert {balance_id: result.verdict for balance_id, result in after.items()} == dict.fromkeys(
            expected, "corrected"
        )
        assert stored(books) == proved(books)
        assert {row[1]: row for row in books.stored_rows() if row[1] not in expected} == {
            balance_id: row for balance_id, row in untouched.items() if balance_id not in expected
        }
        for line in log(books):
            by = tampering[line.balance_id.removeprefix("bln_")]
            taken_off = {name: int(amount) for name, amount in line.previous.minus(line.corrected).as_columns().items()}
            assert taken_off == {name: by.get(name, 0) for name in AMOUNT_COLUMNS}
        assert len(log(books)) == len(expected)

        assert (
            verify(books, "since-close", batch_size=9).findings
            == verify(books, "from-genesis", batch_size=9).findings
            == []
        )
        rows = books.stored_rows()
        again = reconstruct(books, *NAMES)
        assert {result.verdict for result in again.values()} == {"agrees"}
        assert (books.stored_rows(), len(log(books))) == (rows, len(expected))
        assert books.rows("SELECT * FROM blnk.transactions ORDER BY id") == transactions
