"""Amounts and states: beyond 64 bits, without scale, on hold, refunded, one-sided, in two currencies."""

from __future__ import annotations

import json
from datetime import datetime
from decimal import Decimal
from typing import Any

import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError

from ledger_db.books.holds import commit_inflight, refund, void_inflight
from ledger_db.close.runs import Run
from ledger_db.close.totals import exceptions_of, totals_of
from ledger_db.errors import BookingRefused
from ledger_db.history.balance_at import balance_at
from ledger_db.server.connections import make_engine
from tests.testing.books import Books, Ledger, instant, major, unguarded
from tests.testing.oracle import Figures, assert_proved, difference_by_currency, interim, snapshots_of


def at(written: str) -> datetime:
    """A naive UTC timestamp, as the ledger stores them."""
    return instant(written).replace(tzinfo=None)


def figures(books: Books, run: Run, name: str, currency: str = "USD") -> Figures:
    with books.engine.connect() as connection:
        return snapshots_of(connection, run)[books.id_of(name, currency)]


def exceptions(books: Books, run: Run) -> list[tuple[str, str, str, int, int]]:
    with books.engine.connect() as connection:
        return sorted(
            (found.transaction_id, found.currency, found.cause, found.difference, found.inflight_difference)
            for found in exceptions_of(connection, run.run_id)
        )


def pair(books: Books, **columns: Any) -> str:
    """One raw row between ``@world`` and ``wallet`` unless told otherwise."""
    row: dict[str, Any] = {
        "source": books.open("@world"), "destination": books.open("wallet"), "currency": "USD",
        "created_at": at("2026-01-31 12:00"),
    } | columns  # fmt: skip
    return books.insert(**row)


def test_amounts_beyond_64_bits_are_exact_everywhere(books: Books) -> None:
    huge, many = 2**80, 2**62
    rows = [f"2026-01-31 09:00  @world  wallet  {major(huge)} USD"]
    rows += [f"2026-01-31 09:00  @world  wallet  {major(many)} USD"] * 40
    rows += ["2026-01-31 09:00  @world  wallet  0.01 USD"]
    books.post("\n".join(["recorded  source  destination  amount", *rows]))
    run = books.close_day("2026-01-31")

    total = huge + 40 * many + 1
    assert figures(books, run, "wallet") == Figures(total, 0, 0, 0)
    assert figures(books, run, "@world") == Figures(0, total, 0, 0)
    assert_proved(books, run)
    for from_source in (False, True):
        assert books.balance("wallet", at="2026-02-01", from_source=from_source) == major(total)
    with books.engine.connect() as connection:
        (totals,) = totals_of(connection, run.run_id)
        as_text = connection.scalar(
            text("SELECT CAST(jsonb_agg(CAST(credit_balance AS text)) AS text) FROM ledger_eod.run_totals")
        )
    assert (totals.credit_balance, totals.debit_balance, totals.difference) == (total, total, 0)
    assert [int(amount) for amount in json.loads(str(as_text))] == [total]
    assert json.loads(json.dumps({"credits": str(totals.credit_balance)})) == {"credits": str(total)}


def test_totals_beyond_28_digits_are_not_rounded(books: Books) -> None:
    """Python's Decimal rounds differences at 28 digits: a row of 31 digits in two currencies must be explained."""
    crossing = 2**100 + 1
    pair(books, destination=books.open("purse", "EUR"), precise_amount=Decimal(crossing))
    pair(books, precise_amount=Decimal(7))
    run = books.close_day("2026-01-31")
    with books.engine.connect() as connection:
        euros, dollars = totals_of(connection, run.run_id)
    assert (euros.difference, euros.itemised_difference) == (crossing, crossing)
    assert (dollars.difference, dollars.itemised_difference) == (-crossing, -crossing)
    assert exceptions(books, run) == [
        ("txn_raw1", "EUR", "cross_currency", crossing, 0),
        ("txn_raw1", "USD", "cross_currency", -crossing, 0),
    ]
    following = books.close_day("2026-02-01")
    assert figures(books, following, "purse", "EUR") == Figures(crossing, 0, 0, 0)


def test_an_amount_without_precise_amount_is_scaled_by_its_precision(books: Books) -> None:
    pair(books, amount=Decimal("123.45"), precise_amount=None, precision=100)
    pair(books, amount=Decimal("5"), precise_amount=None, precision=None)
    run = books.close_day("2026-01-31")
    assert figures(books, run, "wallet") == Figures(12345 + 5, 0, 0, 0)
    assert exceptions(books, run) == []
    assert_proved(books, run)


@pytest.mark.parametrize(
    ("columns", "cause"),
    [
        ({"amount": Decimal("1.234"), "precise_amount": None, "precision": 100}, "amount_not_integral"),
        ({"precise_amount": Decimal("100.5")}, "amount_not_integral"),
        ({"precise_amount": Decimal("NaN")}, "amount_not_a_number"),
        ({"precise_amount": Decimal("Infinity")}, "amount_not_a_number"),
        ({"amount": None, "precise_amount": None}, "amount_missing"),
        ({"precise_amount": Decimal(100), "status": "COMMIT"}, "unknown_status"),
        ({"precise_amount": Decimal(100), "status": None}, "unknown_status"),
    ],
)
def test_a_row_that_cannot_be_counted_is_itemised_and_never_rounded(
    books: Books, columns: dict[str, Any], cause: str
) -> None:
    pair(books, precise_amount=Decimal(250))
    broken = pair(books, stored_too=False, **columns)
    run = books.close_day("2026-01-31")
    assert run.certified
    assert figures(books, run, "wallet") == Figures(250, 0, 0, 0)
    assert exceptions(books, run) == [(broken, "USD", cause, 0, 0)]
    for from_source in (False, True):
        assert books.balance("wallet", at="2026-02-01", from_source=from_source) == "2.50"


def test_a_hold_across_midnight(books: Books) -> None:
    """Hold 100 at 23:50, commit 40 at 23:58, commit 30 at 00:02, void the rest at 00:03."""
    (hold,) = books.post("""
        recorded          source  destination  amount      status
        2026-01-31 23:50  wallet  shop         100.00 USD  INFLIGHT
    """)
    with books.engine.begin() as connection:
        commit_inflight(connection, hold, amount_minor=4000, created_at=instant("2026-01-31 23:58"))
        commit_inflight(connection, hold, amount_minor=3000, created_at=instant("2026-02-01 00:02"))
        void_inflight(connection, hold, created_at=instant("2026-02-01 00:03"))
    day, following = books.close_day("2026-01-31"), books.close_day("2026-02-01")

    assert figures(books, day, "shop") == Figures(4000, 0, 6000, 0)
    assert figures(books, day, "wallet") == Figures(0, 4000, 0, 6000)
    assert figures(books, following, "shop") == Figures(7000, 0, 0, 0)
    assert figures(books, following, "wallet") == Figures(0, 7000, 0, 0)
    for from_source in (False, True):
        assert [
            (books.balance("shop", at=moment, from_source=from_source),
             books.inflight("shop", at=moment, from_source=from_source))
            for moment in ("2026-01-31 23:50", "2026-01-31 23:55", "2026-02-01", "2026-02-01 00:02:30", "2026-02-02")
        ] == [
            ("0.00", "0.00"), ("0.00", "100.00"), ("40.00", "60.00"), ("70.00", "30.00"), ("70.00", "0.00"),
        ]  # fmt: skip
    assert_proved(books, day)
    assert_proved(books, following)


def test_refunds_move_the_amount_back_and_leave_holds_alone(books: Books) -> None:
    books.post("""
        recorded          source  destination  amount     status    reference
        2026-01-31 09:00  wallet  shop         50.00 USD  APPLIED   sale
        2026-01-31 09:10  wallet  shop         20.00 USD  INFLIGHT  hold
        2026-01-31 09:20  wallet  shop          5.00 USD  INFLIGHT  other
    """)
    with books.engine.begin() as connection:
        void = void_inflight(connection, "txn_hold", created_at=instant("2026-01-31 10:00"))
        refund(connection, "txn_sale", created_at=instant("2026-02-01 09:00"))
        refund(connection, void, created_at=instant("2026-02-01 09:30"))
    day, following = books.close_day("2026-01-31"), books.close_day("2026-02-01")
    assert figures(books, day, "shop") == Figures(5000, 0, 500, 0)
    assert figures(books, following, "shop") == Figures(5000, 7000, 500, 0)
    assert figures(books, following, "wallet") == Figures(7000, 5000, 0, 500)
    assert_proved(books, following)


@pytest.mark.parametrize("parent_status", ["QUEUED", "REJECTED", "SCHEDULED", "APPLIED", "VOID"])
def test_only_a_child_of_an_inflight_row_takes_off_a_hold(books: Books, parent_status: str) -> None:
    books.post("""
        recorded          source  destination  amount     status
        2026-01-31 09:00  @world  wallet        9.00 USD  INFLIGHT
    """)
    parent = pair(books, precise_amount=Decimal(700), status=parent_status)
    pair(books, precise_amount=Decimal(700), status="APPLIED", parent_transaction=parent)
    run = books.close_day("2026-01-31")
    posted = 700 + (700 if parent_status == "APPLIED" else 0)
    assert figures(books, run, "wallet") == Figures(posted, 0, 900, 0)
    assert_proved(books, run)


def test_an_over_commit_leaves_a_negative_hold_and_the_books_in_balance(books: Books) -> None:
    hold = pair(books, precise_amount=Decimal(100), status="INFLIGHT")
    pair(books, precise_amount=Decimal(150), status="APPLIED", parent_transaction=hold)
    run = books.close_day("2026-01-31")
    assert figures(books, run, "wallet") == Figures(150, 0, -50, 0)
    assert_proved(books, run)


def test_a_self_transfer_raises_credit_and_debit_alike(books: Books) -> None:
    wallet = books.open("wallet")
    pair(books, source=wallet, destination=wallet, precise_amount=Decimal(500))
    pair(books, source=wallet, destination=wallet, precise_amount=Decimal(30), status="INFLIGHT")
    run = books.close_day("2026-01-31")
    assert figures(books, run, "wallet") == Figures(500, 500, 30, 30)
    assert exceptions(books, run) == []
    assert books.balance("wallet", at="2026-02-01") == books.balance("wallet", at="2026-02-01", from_source=True)
    assert_proved(books, run)


def test_cross_currency_rows_are_itemised_and_the_close_is_certified(books: Books) -> None:
    purse = books.open("purse", "EUR")
    crossing = pair(books, destination=purse, precise_amount=Decimal(1000))
    held = pair(books, destination=purse, precise_amount=Decimal(30), status="INFLIGHT")
    pair(books, precise_amount=Decimal(7))
    run = books.close_day("2026-01-31")

    assert exceptions(books, run) == [
        (crossing, "EUR", "cross_currency", 1000, 0),
        (crossing, "USD", "cross_currency", -1000, 0),
        (held, "EUR", "cross_currency", 0, 30),
        (held, "USD", "cross_currency", 0, -30),
    ]
    with books.engine.connect() as connection:
        assert difference_by_currency(connection, run) == {"EUR": (1000, 30), "USD": (-1000, -30)}
        assert [
            (t.currency, t.difference, t.itemised_difference, t.itemised_inflight_difference)
            for t in totals_of(connection, run.run_id)
        ] == [("EUR", 1000, 1000, 30), ("USD", -1000, -1000, -30)]
    # the explanation is carried along the chain, also by an interim run, and by one that only adds a new balance
    first = interim(books, "2026-02-01 10:00")
    books.open("late")
    second = interim(books, "2026-02-01 11:00")
    assert (first.certified, second.snapshot_count) == (True, 1)
    following = books.close_day("2026-02-01")
    assert exceptions(books, following) == []
    with books.engine.connect() as connection:
        assert difference_by_currency(connection, following) == {"EUR": (1000, 30), "USD": (-1000, -30)}


@pytest.mark.parametrize("columns", [{"source": None}, {"destination": None}, {"parent_transaction": "txn_later"}])
def test_a_row_that_lacks_what_it_names_waits_whole_and_is_itemised(books: Books, columns: dict[str, Any]) -> None:
    """Neither side is counted while one is missing: the sides of a row are counted in one close."""
    pair(books, precise_amount=Decimal(50))
    waiting = pair(books, precise_amount=Decimal(600), stored_too=False, **columns)
    run = books.close_day("2026-01-31")
    cause = "unknown_parent" if "parent_transaction" in columns else "one_sided"
    assert exceptions(books, run) == [(waiting, "USD", cause, 0, 0)]
    assert figures(books, run, "wallet") == Figures(50, 0, 0, 0)
    assert figures(books, run, "@world") == Figures(0, 50, 0, 0)
    with books.engine.connect() as connection:
        assert difference_by_currency(connection, run) == {"USD": (0, 0)}
    assert run.certified

    # once it has both, the next close counts it, for the date that it happened on
    sides = {"source": books.id_of("@world"), "destination": books.id_of("wallet")}
    for name in columns.keys() & sides.keys():
        unguarded(
            books,
            "blnk.transactions",
            f"UPDATE blnk.transactions SET {name} = '{sides[name]}' WHERE transaction_id = '{waiting}'",
        )
    if "parent_transaction" in columns:
        pair(books, precise_amount=Decimal(1), reference="later")
    following = books.close_day("2026-02-01")
    late = 1 if "parent_transaction" in columns else 0
    assert figures(books, following, "wallet") == Figures(650 + late, 0, 0, 0)
    assert_proved(books, following)


def test_rows_that_need_a_look_of_their_own_take_nothing_from_plain_ones(books: Books) -> None:
    """Plain rows are summed before anything is known of their balances; those of balances in doubt are summed anew."""
    books.execute("ALTER TABLE blnk.transactions DROP CONSTRAINT fk_transactions_destination")  # as in the reference
    world, wallet, shop, purse = (
        books.open("@world"),
        books.open("wallet"),
        books.open("shop"),
        books.open("purse", "EUR"),
    )
    plain = [pair(books, precise_amount=Decimal(1)) for _ in range(3)]
    pair(books, destination=shop, precise_amount=Decimal(20))
    pair(books, source=wallet, destination=shop, precise_amount=Decimal(2), status="INFLIGHT")
    other_spelling = pair(books, precise_amount=Decimal(300), currency="usd")  # what the row says is not what counts
    nameless = pair(books, destination=shop, precise_amount=Decimal(4000), currency=None)
    huge = pair(books, precise_amount=Decimal(2**63 * 10))
    largest = pair(books, destination=shop, precise_amount=Decimal(9 * 10**18))
    crossing = pair(books, source=wallet, destination=purse, precise_amount=Decimal(7))
    nobodys = pair(books, destination="bln_nobody", precise_amount=Decimal(50_000), stored_too=False)
    broken = pair(books, precise_amount=Decimal("0.5"), stored_too=False)
    tomorrow = pair(
        books, destination="bln_nobody", precise_amount=Decimal(9), stored_too=False, created_at=at("2026-02-01 09:00")
    )
    own = pair(books, source=shop, destination=shop, precise_amount=Decimal(5))
    run = books.close_day("2026-01-31")

    assert exceptions(books, run) == sorted(
        [
            (crossing, "EUR", "cross_currency", 7, 0),
            (crossing, "USD", "cross_currency", -7, 0),
            (nobodys, "USD", "unknown_balance", 0, 0),
            (broken, "USD", "amount_not_integral", 0, 0),
            (tomorrow, "USD", "unknown_balance", 0, 0),
        ]
    )
    assert figures(books, run, "wallet") == Figures(3 + 300 + 2**63 * 10, 7, 0, 2)
    assert figures(books, run, "shop") == Figures(20 + 4000 + 9 * 10**18 + 5, 5, 2, 0)
    assert figures(books, run, "purse", "EUR") == Figures(7, 0, 0, 0)
    assert figures(books, run, "@world") == Figures(0, 3 + 20 + 300 + 4000 + 2**63 * 10 + 9 * 10**18, 0, 0)
    last = dict(
        books.rows("""
        SELECT captured.balance_id, t.transaction_id
        FROM ledger_eod.balance_snapshots AS snapshots
        JOIN ledger_eod.captured_balances AS captured USING (balance_key)
        JOIN blnk.transactions AS t ON t.id = snapshots.last_transaction_key
    """)
    )
    assert last == {world: largest, wallet: crossing, shop: own, purse: crossing}
    assert {*plain, other_spelling, nameless, huge}.isdisjoint(row[0] for row in exceptions(books, run))


def test_a_row_with_a_legacy_rate_is_counted_at_it_and_said_to_be_unprovable(ledger: Ledger) -> None:
    with ledger.engine.begin() as connection:
        connection.execute(text("ALTER TABLE blnk.transactions ADD COLUMN rate double precision DEFAULT 1"))
    books = Books(ledger)
    purse = books.open("purse", "EUR")
    plain = pair(books, precise_amount=Decimal(40))
    rated = pair(books, destination=purse, precise_amount=Decimal(1000), rate=0.5)
    odd = pair(books, destination=purse, precise_amount=Decimal(1001), rate=0.5)
    nan = pair(books, destination=purse, precise_amount=Decimal(9), rate=float("nan"), stored_too=False)
    run = books.close_day("2026-01-31")

    assert figures(books, run, "purse", "EUR") == Figures(500, 0, 0, 0)
    assert figures(books, run, "@world") == Figures(0, 1040, 0, 0)
    assert [row[:4] for row in exceptions(books, run)] == [
        (rated, "EUR", "legacy_rate", 500),
        (rated, "USD", "legacy_rate", -1000),
        (odd, "EUR", "legacy_rate_not_integral", 0),
        (nan, "EUR", "legacy_rate_not_a_number", 0),
    ]
    assert plain not in {row[0] for row in exceptions(books, run)}
    assert books.balance("purse", at="2026-02-01") == "5.00"


def test_a_session_outlives_the_applications_drop_of_the_rate(ledger: Ledger) -> None:
    with ledger.engine.begin() as connection:
        connection.execute(text("ALTER TABLE blnk.transactions ADD COLUMN rate double precision DEFAULT 1"))
    books = Books(ledger)
    books.post("recorded  source  destination  amount\n2026-01-05 09:00  @world  wallet  12.00 USD")
    application = make_engine(ledger.url)  # other sessions
    february = instant("2026-02-01")
    with ledger.engine.connect() as connection:  # one session, as of a pool
        assert balance_at(connection, "bln_wallet", february).balance == 1200
        with application.connect() as other, other.begin():
            other.execute(text("SET LOCAL lock_timeout = '100ms'"))
            with pytest.raises(DBAPIError, match="lock timeout"):  # not while it is being read
                other.execute(text("ALTER TABLE blnk.transactions DROP COLUMN rate"))
        connection.commit()
        with application.begin() as other:
            other.execute(text("ALTER TABLE blnk.transactions DROP COLUMN rate"))
        assert balance_at(connection, "bln_wallet", february).balance == 1200
        connection.commit()
        with application.begin() as other:  # and the other way round
            other.execute(text("ALTER TABLE blnk.transactions ADD COLUMN rate double precision DEFAULT 2"))
        assert balance_at(connection, "bln_wallet", february).balance == 2400
    application.dispose()


def test_a_duplicate_reference_is_refused_and_leaves_nothing(books: Books) -> None:
    row = """
        recorded          source  destination  amount     reference
        2026-01-31 09:00  @world  wallet       50.00 USD  sale
    """
    books.post(row)
    before = books.stored_rows()
    with pytest.raises(BookingRefused, match="reference sale"):
        books.post(row)
    assert books.stored_rows() == before
    run = books.close_day("2026-01-31")
    assert figures(books, run, "wallet") == Figures(5000, 0, 0, 0)


@pytest.mark.parametrize("with_shadows", [True, False])
def test_lineage_shadow_balances_keep_the_close_at_zero(books: Books, with_shadows: bool) -> None:
    table = """
        recorded          source              destination         amount
        2026-01-31 09:00  @world              wallet              80.00 USD
        2026-01-31 09:30  wallet              shop                30.00 USD
    """
    if with_shadows:
        table += """
        2026-01-31 09:00  aggregate_stripe    shadow_stripe       80.00 USD
        2026-01-31 09:30  shadow_stripe       aggregate_stripe    30.00 USD
        """
    books.post(table)
    run = books.close_day("2026-01-31")
    assert figures(books, run, "wallet") == Figures(8000, 3000, 0, 0)
    if with_shadows:
        assert figures(books, run, "shadow_stripe") == Figures(8000, 3000, 0, 0)
    assert_proved(books, run)


def test_idle_zero_and_new_balances_have_their_snapshot(books: Books) -> None:
    books.post("""
        recorded          source  destination  amount
        2026-01-30 09:00  @world  idle         50.00 USD
        2026-01-30 09:00  @world  zero          5.00 USD
        2026-01-30 10:00  zero    @world        5.00 USD
    """)
    first = books.close_day("2026-01-30")
    books.open("new")
    second = books.close_day("2026-01-31")
    assert figures(books, first, "idle") == figures(books, second, "idle") == Figures(5000, 0, 0, 0)
    assert figures(books, second, "zero") == Figures(500, 500, 0, 0)
    assert figures(books, second, "new") == Figures(0, 0, 0, 0)
    assert (first.snapshot_count, second.snapshot_count) == (3, 4)
    assert_proved(books, second)
