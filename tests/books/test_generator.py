"""The synthetic ledger: the same rows in whatever parts it is loaded, and books that balance."""

from __future__ import annotations

from dataclasses import replace
from datetime import date, timedelta
from typing import Any

import pytest

from ledger_db.books.accounts import create_balance
from ledger_db.books.generator import (
    GeneratorResult,
    GeneratorSpec,
    analyze,
    generate,
    generate_balances,
    load_transactions,
)
from ledger_db.errors import BookingRefused, UnknownBalance
from tests.testing.books import Books

SPEC = GeneratorSpec(first_date=date(2026, 1, 1), balances=60, transactions=2_000, days=8, inflight_share=0.2)

TRANSACTIONS = (
    "SELECT transaction_id, source, destination, reference, amount, precise_amount, precision, currency, status, "
    "created_at, effective_date, parent_transaction FROM blnk.transactions ORDER BY id"
)
AMOUNTS = (
    "credit_balance, debit_balance, balance, inflight_credit_balance, inflight_debit_balance, inflight_balance"
)  # fmt: skip
BALANCES = f"SELECT balance_id, currency, {AMOUNTS} FROM blnk.balances WHERE indicator IS NULL ORDER BY id"


def with_internal_ids_told_apart(books: Books) -> list[tuple[Any, ...]]:
    """The transactions, with the names of internal balances, as the seed does not determine their ids."""
    names = dict(books.rows("SELECT balance_id, indicator FROM blnk.balances WHERE indicator IS NOT NULL"))
    return [tuple(names.get(cell, cell) for cell in row) for row in books.rows(TRANSACTIONS)]


def load(books: Books, spec: GeneratorSpec = SPEC) -> GeneratorResult:
    with books.engine.begin() as connection:
        return generate(connection, spec)


def unproven(books: Books) -> list[str]:
    """The balances whose stored row is not the sum of their postings from the first one on."""
    different = []
    for (balance_id,) in books.rows("SELECT balance_id FROM blnk.balances"):
        proven = [kind(balance_id, at="9999-01-01", from_source=True) for kind in (books.balance, books.inflight)]
        if proven != [books.balance(balance_id), books.inflight(balance_id)]:
            different.append(balance_id)
    return different


def test_synthetic_ledger_balances_and_its_stored_rows_are_proven(books: Books) -> None:
    assert load(books).transaction_count == 2_000
    assert books.rows("SELECT count(*), count(DISTINCT reference) FROM blnk.transactions") == [(2_000, 2_000)]
    assert books.difference() == [("EUR", "0.00", "0.00"), ("GBP", "0.00", "0.00"), ("USD", "0.00", "0.00")]
    assert unproven(books) == []
    assert books.rows("SELECT count(*) FROM blnk.balances WHERE version > 2") == [(0,)]


def test_same_seed_gives_the_same_rows_and_another_seed_others(books: Books, other_books: Books) -> None:
    load(books)
    load(other_books)
    assert with_internal_ids_told_apart(books) == with_internal_ids_told_apart(other_books)
    assert books.rows(BALANCES) == other_books.rows(BALANCES)
    first = {row[0] for row in books.rows(TRANSACTIONS)}
    load(books, replace(SPEC, seed=2))
    second = {row[0] for row in books.rows(TRANSACTIONS)} - first
    assert (len(first), len(second)) == (2_000, 2_000)
    assert unproven(books) == []


def test_loading_day_by_day_gives_the_rows_of_loading_at_once(books: Books, other_books: Books) -> None:
    load(books)
    with other_books.engine.begin() as connection:
        generate_balances(connection, SPEC)
    counts = []
    for days in range(SPEC.days):
        day = SPEC.first_date + timedelta(days=days)
        with other_books.engine.begin() as connection:
            loaded = load_transactions(
                connection, SPEC, recorded_from=day, recorded_until=day + timedelta(days=1)
            )  # fmt: skip
        counts.append(loaded.transaction_count)
    assert sum(counts) == 2_000
    assert with_internal_ids_told_apart(other_books) == with_internal_ids_told_apart(books)
    assert other_books.rows(BALANCES) == books.rows(BALANCES)
    assert books.rows("SELECT count(DISTINCT recorded_xid) FROM blnk.transactions") == [(1,)]
    assert other_books.rows("SELECT count(DISTINCT recorded_xid) FROM blnk.transactions") == [(8,)]


def test_stages_in_one_database_transaction_count_each_row_once(books: Books, other_books: Books) -> None:
    load(books)
    middle = SPEC.first_date + timedelta(days=5)
    with other_books.engine.begin() as connection:
        generate_balances(connection, SPEC)
        load_transactions(connection, SPEC, recorded_until=middle)
        load_transactions(connection, SPEC, recorded_from=middle)
    assert other_books.rows(BALANCES) == books.rows(BALANCES)


def test_later_stage_brings_late_arrivals_into_closed_days(books: Books) -> None:
    spec = replace(SPEC, late_share=0.2)
    middle = spec.first_date + timedelta(days=4)
    with books.engine.begin() as connection:
        generate_balances(connection, spec)
        load_transactions(connection, spec, recorded_until=middle)
    books.close_day("2026-01-04", batch_size=25)
    with books.engine.begin() as connection:
        load_transactions(connection, spec, recorded_from=middle)
    run = books.close_day("2026-01-05", batch_size=25)
    ((late,),) = books.rows(
        "SELECT sum(posting_count) FROM ledger_eod.activity WHERE run_id = :run_id AND is_late", run_id=run.run_id
    )
    assert late > 0
    assert books.rows("SELECT cause FROM ledger_eod.run_exceptions") == []
    assert unproven(books) == []


def test_every_kind_of_row_is_there(books: Books) -> None:
    load(books, replace(SPEC, late_share=0.1, future_share=0.1, refund_share=0.1))
    ((applied, held, queued, rejected, void, refunds, partial, open_holds, late, queued_late, future),) = books.rows(
        """
        WITH settled AS (
            SELECT hold.precise_amount AS held, sum(child.precise_amount) AS settled
            FROM blnk.transactions AS hold
            LEFT JOIN blnk.transactions AS child ON child.parent_transaction = hold.transaction_id
            WHERE hold.status = 'INFLIGHT'
            GROUP BY hold.id
        )
        SELECT
            count(*) FILTER (WHERE t.status = 'APPLIED'),
            count(*) FILTER (WHERE t.status = 'INFLIGHT'),
            count(*) FILTER (WHERE t.status = 'QUEUED'),
            count(*) FILTER (WHERE t.status = 'REJECTED'),
            count(*) FILTER (WHERE t.status = 'VOID'),
            count(*) FILTER (WHERE parent.status = 'APPLIED' AND parent.source = t.destination),
            count(*) FILTER (WHERE parent.status = 'INFLIGHT' AND t.precise_amount < parent.precise_amount),
            (SELECT count(*) FROM settled WHERE settled.settled IS NULL OR settled.settled < settled.held),
            count(*) FILTER (WHERE CAST(t.effective_date AS date) < CAST(t.created_at AS date)),
            count(*) FILTER (WHERE parent.status = 'QUEUED' AND t.created_at = parent.created_at),
            count(*) FILTER (WHERE t.effective_date > t.created_at)
        FROM blnk.transactions AS t
        LEFT JOIN blnk.transactions AS parent ON parent.transaction_id = t.parent_transaction
        """
    )
    assert min(applied, held, queued, rejected, void, refunds, partial, open_holds, late, queued_late, future) > 0
    assert applied > held + queued + rejected + void


def test_nothing_is_over_committed_or_effective_before_the_first_day(books: Books) -> None:
    load(books, replace(SPEC, late_share=0.3, late_max_days=30))
    assert books.rows(
        """
        SELECT hold.transaction_id
        FROM blnk.transactions AS hold
        JOIN blnk.transactions AS child ON child.parent_transaction = hold.transaction_id
        WHERE hold.status = 'INFLIGHT'
        GROUP BY hold.id
        HAVING sum(child.precise_amount) > hold.precise_amount
        """
    ) == []  # fmt: skip
    assert books.rows(
        "SELECT count(*) FROM blnk.transactions WHERE LEAST(created_at, effective_date) < '2026-01-01'"
    ) == [(0,)]
    assert books.rows("SELECT count(*) FROM blnk.transactions WHERE created_at >= '2026-01-09'") == [(0,)]


def test_hot_balances_carry_their_share(books: Books) -> None:
    load(books, replace(SPEC, hot_balances=3, hot_share=0.9, currencies=("USD",)))
    ((busiest,),) = books.rows(
        "SELECT max(touched) FROM (SELECT count(*) AS touched FROM blnk.transactions "
        "JOIN blnk.balances ON balance_id IN (source, destination) WHERE indicator IS NULL GROUP BY balance_id) AS b"
    )
    assert busiest > 2_000 / 10


def test_existing_internal_balances_fund_the_new_ones(books: Books) -> None:
    with books.engine.begin() as connection:
        world = create_balance(connection, currency="USD", indicator="@World-USD")
        generate(connection, replace(SPEC, currencies=("USD",), transactions=200))
    assert books.rows("SELECT balance_id FROM blnk.balances WHERE indicator IS NOT NULL") == [(world,)]
    ((funded,),) = books.rows("SELECT count(*) FROM blnk.transactions WHERE source = :world", world=world)
    assert funded > 0


def test_second_generation_of_a_seed_is_refused_and_leaves_the_ledger(books: Books) -> None:
    load(books)
    before = (books.stored_rows(), books.rows(TRANSACTIONS))
    with books.engine.begin() as connection, pytest.raises(BookingRefused, match=r"^seed 1 is in this ledger already"):
        generate(connection, SPEC)
    assert (books.stored_rows(), books.rows(TRANSACTIONS)) == before


def test_transactions_before_balances_are_refused(books: Books) -> None:
    with books.engine.begin() as connection, pytest.raises(UnknownBalance, match=r"^there is no @World-USD: make the"):
        load_transactions(connection, SPEC)


@pytest.mark.parametrize(
    "change",
    [
        {"balances": 5},
        {"days": 0},
        {"transactions": -1},
        {"currencies": ()},
        {"currencies": ("USD", "USD")},
        {"hot_share": 1.1},
        {"late_share": -0.1},
        {"inflight_share": 0.9, "refund_share": 0.2},
        {"late_max_days": 0},
    ],
)
def test_specification_that_cannot_be_met_is_refused(change: dict[str, Any]) -> None:
    with pytest.raises(BookingRefused):
        replace(SPEC, **change)


def test_no_transactions_are_no_rows(books: Books) -> None:
    assert load(books, replace(SPEC, transactions=0)) == GeneratorResult(60, 0, 0)
    analyze(books.engine)
    assert books.rows("SELECT reltuples FROM pg_class WHERE oid = to_regclass('blnk.balances')") == [(63.0,)]
