"""Verification while the ledger is at work, over generated histories, and what it reads."""

from __future__ import annotations

import os
import random
from contextlib import contextmanager
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import URL, text

from ledger_db.core.key_ranges import KeyRange
from ledger_db.verification.causes import Finding
from ledger_db.verification.discrepancies import record_findings
from ledger_db.verification.drift import check_transactions, verify_batch
from ledger_db.verification.sweeps import (
    Tally,
    close_to_verify,
    collect_postings,
    end_verification,
    open_verification,
    plan_balance_ranges,
)
from tests.testing.books import Books
from tests.testing.databases import database_of
from tests.testing.histories import CURRENCIES, History, nights, play
from tests.testing.verifications import verify
from tests.testing.writers import EUR, USD, Writers

#: How often the books are swept under four writers; a thousand times: EOD_SWEEPS=1000.
SWEEPS = int(os.environ.get("EOD_SWEEPS", "200"))
PARTS = ("credit_balance", "debit_balance", "inflight_credit_balance", "inflight_debit_balance")


# No false alarms ------------------------------------------------------------------------------------------------------


def test_sweeps_under_four_writers_report_nothing(books: Books) -> None:
    """Back-dated, future-dated, held, settled, left open: whatever the moment, the rows are what the postings prove."""
    for name in USD:
        books.open(name)
    for name in EUR:
        books.open(name, "EUR")
    chance = random.Random(5)  # noqa: S311
    verdicts = 0
    with Writers(books.ledger).at_work() as writers:
        writers.wait_for(40)
        books.close_day("2026-01-29")
        before = writers.recorded
        while verdicts < SWEEPS:
            if verdicts and verdicts % (SWEEPS // 2) == 0:
                books.close_day("2026-01-30")
            scope: Any = chance.choice(["since-close", "since-close", "from-genesis"])
            with books.engine.begin() as connection:
                opened = open_verification(connection, scope=scope)
            with books.engine.begin() as connection:
                collect_postings(connection, opened.verification_id)
                ranges = plan_balance_ranges(connection, opened.verification_id, batch_size=8)
            for _ in range(10):  # sweep after sweep from one cut, while the writers go on
                findings = []
                for keys in chance.sample(ranges, len(ranges)):
                    with books.engine.begin() as connection:
                        connection.execute(text("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY"))
                        findings += verify_batch(connection, opened.verification_id, keys).findings
                assert findings == []
                verdicts += 1
            with books.engine.begin() as connection:
                assert check_transactions(connection, opened.verification_id) == []
                end_verification(connection, opened.verification_id, Tally(), closed_count=0)
        assert writers.recorded > before + SWEEPS // 4


def test_a_transaction_that_is_not_committed_is_no_drift(books: Books) -> None:
    books.post("recorded  source  destination  amount\n2026-01-31 09:00  @world  wallet  5.00 USD")
    books.close_day("2026-01-31")
    with books.engine.connect() as connection, connection.begin():
        books.post_on(connection, "recorded  source  destination  amount\n2026-01-31 09:00  @world  wallet  1.00 USD")
        for scope in ("since-close", "from-genesis", "checksums"):
            assert verify(books, scope).findings == []
    assert verify(books, "since-close").findings == []


# Exactly what was tampered with ---------------------------------------------------------------------------------------


@given(
    written=st.lists(nights, min_size=1, max_size=3),
    tampering=st.dictionaries(
        st.sampled_from([*CURRENCIES, "x", "y"]),
        st.dictionaries(st.sampled_from(PARTS), st.integers(-500, 500).filter(bool), min_size=1, max_size=4),
        max_size=4,
    ),
)
@settings(max_examples=15, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True)
def test_verify_finds_exactly_the_stored_rows_that_were_tampered_with(
    server_url: URL, template_name: str, written: list[Any], tampering: dict[str, dict[str, int]]
) -> None:
    with contextmanager(database_of)(server_url, template_name) as ledger:
        books = Books(ledger)
        for name, currency in (CURRENCIES | {"x": "USD", "y": "USD"}).items():
            books.open(name, currency)
        history = History(books)
        play(history, written)
        history.end()
        for scope in ("since-close", "from-genesis"):
            assert verify(books, scope).findings == [], scope
        for name, changes in tampering.items():
            for column, by in changes.items():
                books.execute(f"UPDATE blnk.balances SET {column} = {column} + {by} WHERE balance_id = 'bln_{name}'")
        transactions = books.rows("SELECT * FROM blnk.transactions ORDER BY id")
        stored = books.stored_rows()
        for scope in ("since-close", "from-genesis"):
            sweep = verify(books, scope)  # type: ignore[arg-type]
            assert sorted(each.balance_id or "" for each in sweep.found) == sorted(f"bln_{name}" for name in tampering)
            for each in sweep.found:
                changes = tampering[str(each.balance_id).removeprefix("bln_")]
                assert each.difference == "|".join(str(changes.get(column, 0)) for column in PARTS)
        assert books.rows("SELECT * FROM blnk.transactions ORDER BY id") == transactions
        assert books.stored_rows() == stored


def test_the_newest_close_is_to_be_verified_once(books: Books) -> None:
    books.open("wallet")
    with books.engine.connect() as connection:
        assert close_to_verify(connection) is None
    run = books.close_day("2026-01-31")
    with books.engine.connect() as connection:
        assert close_to_verify(connection) == run
    verify(books, "since-close", balance_ids=["bln_wallet"])
    with books.engine.connect() as connection:
        assert close_to_verify(connection) == run  # of some balances only
    verify(books, "since-close")
    with books.engine.connect() as connection:
        assert close_to_verify(connection) is None


def test_ranges_of_a_verification_that_ended_have_no_verdict(books: Books) -> None:
    books.open("wallet")
    books.close_day("2026-01-31")
    sweep = verify(books, "since-close")
    with books.engine.connect() as connection, pytest.raises(Exception, match="has no sums to prove from"):
        verify_batch(connection, sweep.verification.verification_id, KeyRange(1, 1, 1))


def test_findings_are_stored_while_the_sums_are_collected(books: Books) -> None:
    books.open("wallet")
    with books.engine.begin() as connection:
        opened = open_verification(connection, scope="from-genesis")
    finding = Finding("orphan_commit", "investigate", transaction_key=1)
    with books.engine.connect() as collecting, collecting.begin():
        collect_postings(collecting, opened.verification_id)
        with books.engine.begin() as connection:
            connection.execute(text("SET LOCAL lock_timeout = '1s'"))
            assert record_findings(connection, opened, [finding]).opened_count == 1
