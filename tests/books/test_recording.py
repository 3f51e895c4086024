"""Recording, holds and refunds: the stored balance rows afterwards, and that a refusal does not change them."""

from __future__ import annotations

import threading
from datetime import UTC, datetime
from decimal import Decimal
from itertools import pairwise
from typing import Any

import pytest
from sqlalchemy import text

from ledger_db.books import accounts, holds, recording
from ledger_db.books.accounts import StoredBalance
from ledger_db.books.recording import Movement
from ledger_db.core.amounts import Amounts
from ledger_db.errors import (
    BookingRefused,
    LedgerError,
    UnknownBalance,
    UnknownIdentity,
    UnknownLedger,
    UnknownTransaction,
)
from ledger_db.postings.rules import statement
from tests.testing.books import Books, instant, major


def transactions(books: Books) -> list[tuple[Any, ...]]:
    return books.rows(
        "SELECT transaction_id, source, destination, status, precise_amount, parent_transaction "
        "FROM blnk.transactions ORDER BY id"
    )


def refused(books: Books, *movements: Movement, error: type[LedgerError] = BookingRefused) -> str:
    """The message that refuses movements. Nothing may change, and the transaction must stay usable."""
    before = (books.stored_rows(), transactions(books))
    with books.engine.begin() as connection:
        with pytest.raises(error) as refusal:
            recording.record_many(connection, movements)
        assert connection.scalar(text("SELECT 1")) == 1
    assert (books.stored_rows(), transactions(books)) == before
    line = str(refusal.value)
    assert "\n" not in line
    return line


def test_transfer_credits_the_destination_and_debits_the_source(books: Books) -> None:
    books.post("""
        source  destination  amount
        @world  wallet       1200.00 USD
        wallet  @fees          50.00 USD
    """)
    assert [books.stored("wallet", column) for column in ("credit_balance", "debit_balance", "balance")] == [
        "1200.00",
        "50.00",
        "1150.00",
    ]
    assert books.balance("@world") == "-1200.00"
    assert books.balance("@fees") == "50.00"
    assert books.difference() == [("USD", "0.00", "0.00")]


def test_every_write_of_a_balance_row_bumps_its_version(books: Books) -> None:
    books.post("source  destination  amount\n@world  wallet  1.00 USD\n@world  wallet  1.00 USD")
    books.post("source  destination  amount\n@world  wallet  1.00 USD")
    assert books.rows("SELECT version FROM blnk.balances ORDER BY id") == [(3,), (3,)]


def test_queued_scheduled_and_rejected_rows_leave_balances_and_versions(books: Books) -> None:
    books.open("@world")
    books.open("wallet")
    before = books.stored_rows()
    books.post("""
        source  destination  amount     status
        @world  wallet       10.00 USD  QUEUED
        @world  wallet       10.00 USD  SCHEDULED
        @world  wallet       10.00 USD  REJECTED
        @world  wallet       10.00 USD  VOID
    """)
    assert books.stored_rows() == before


def test_self_transfer_raises_credit_and_debit_alike(books: Books) -> None:
    books.post("source  destination  amount\nwallet  wallet  5.00 USD")
    assert [books.stored("wallet", column) for column in ("credit_balance", "debit_balance", "balance")] == [
        "5.00",
        "5.00",
        "0.00",
    ]


def test_amounts_beyond_64_bits_stay_exact(books: Books) -> None:
    books.open("@world")
    books.open("vault")
    huge = Movement("bln_world_usd", "bln_vault", 2**80, "USD", precision=10**18)
    with books.engine.begin() as connection:
        recording.record_many(connection, [huge, huge])
    assert books.stored("vault") == major(2**81)
    assert books.rows("SELECT DISTINCT amount, precise_amount, precision FROM blnk.transactions") == [
        (Decimal("1208925.819614629174706176"), Decimal(2**80), 10**18)
    ]


def test_instants_are_stored_as_naive_utc(books: Books) -> None:
    books.open("@world")
    books.open("wallet")
    with books.engine.begin() as connection:
        recording.record(
            connection,
            Movement(
                "bln_world_usd",
                "bln_wallet",
                1,
                "USD",
                created_at=datetime.fromisoformat("2026-01-31T23:30:00-05:00"),
                effective_date=datetime.fromisoformat("2026-01-31T00:30:00+05:30"),
            ),
        )
    assert books.rows("SELECT CAST(created_at AS text), CAST(effective_date AS text) FROM blnk.transactions") == [
        ("2026-02-01 04:30:00", "2026-01-30 19:00:00")
    ]


@pytest.mark.parametrize(
    ("change", "line"),
    [
        ({"amount_minor": 0}, "inv-1: amount_minor 0 is not a positive whole number"),
        ({"amount_minor": -5}, "inv-1: amount_minor -5 is not a positive whole number"),
        ({"amount_minor": True}, "inv-1: amount_minor True is not a positive whole number"),
        ({"amount_minor": 1.0}, "inv-1: amount_minor 1.0 is not a positive whole number"),
        ({"status": "COMMIT"},
         "inv-1: status 'COMMIT' is none of APPLIED, INFLIGHT, QUEUED, SCHEDULED, REJECTED, VOID"),
        ({"source": "bln_nobody"}, "there is no balance bln_nobody; create it first"),
        ({"precision": 3}, "precision 3 is not a power of ten from 1 to 10^18"),
        ({"currency": "U S D"},
         "'U S D' is no currency: an ISO 4217 code, a ticker or a name of at most 64 characters, no spaces"),
        ({"currency": "EUR"}, "inv-1: source bln_world_usd is kept in USD, the transaction is in EUR"),
        ({"created_at": datetime(2026, 1, 31)},  # noqa: DTZ001 - that is what is refused
         "inv-1: created_at 2026-01-31T00:00:00 has no offset: write for instance 2026-01-31T00:00:00+00:00"),
        ({"reference": "known"}, "reference known or id txn_new is recorded already"),
        ({"transaction_id": "txn_known"}, "reference inv-1 or id txn_known is recorded already"),
    ],
)  # fmt: skip
def test_movement_that_breaks_the_books_is_refused_and_leaves_the_others_out(
    books: Books, change: dict[str, Any], line: str
) -> None:
    books.post("source  destination  amount  reference\n@world  wallet  1.00 USD  known")
    good = Movement("bln_world_usd", "bln_wallet", 100, "USD", reference="good")
    fields: dict[str, Any] = {
        "source": "bln_world_usd", "destination": "bln_wallet", "amount_minor": 100, "currency": "USD",
        "reference": "inv-1", "transaction_id": "txn_new",
    }  # fmt: skip
    error = UnknownBalance if "source" in change else BookingRefused
    assert refused(books, good, Movement(**(fields | change)), error=error) == line


def test_reference_given_twice_is_refused(books: Books) -> None:
    books.open("@world")
    books.open("wallet")
    twin = Movement("bln_world_usd", "bln_wallet", 100, "USD", reference="inv-1")
    assert refused(books, twin, twin) == "reference inv-1 is given twice"


def test_recording_nothing_writes_nothing(books: Books) -> None:
    with books.engine.begin() as connection:
        assert recording.record_many(connection, []) == []
    assert transactions(books) == []


def test_ids_come_back_in_the_order_of_the_movements(books: Books) -> None:
    ids = books.post("""
        source  destination  amount    reference
        @world  wallet       2.00 USD  b
        @world  wallet       1.00 USD  a
    """)
    assert ids == ["txn_b", "txn_a"]
    assert [row[0] for row in transactions(books)] == ids


# Holds ----------------------------------------------------------------------------------------------------------------


def hold(books: Books, amount: str = "100.00 USD") -> str:
    return books.post(f"source  destination  amount  status\n@world  wallet  {amount}  INFLIGHT")[0]


def test_hold_committed_in_parts_and_voided_moves_from_inflight_to_posted(books: Books) -> None:
    held = hold(books)
    assert (books.balance("wallet"), books.inflight("wallet")) == ("0.00", "100.00")
    with books.engine.begin() as connection:
        holds.commit_inflight(connection, held, amount_minor=40_00)
        holds.commit_inflight(connection, held, amount_minor=30_00)
    assert (books.balance("wallet"), books.inflight("wallet")) == ("70.00", "30.00")
    with books.engine.begin() as connection:
        holds.void_inflight(connection, held)
    assert (books.balance("wallet"), books.inflight("wallet")) == ("70.00", "0.00")
    assert [(row[3], row[4], row[5]) for row in transactions(books)] == [
        ("INFLIGHT", 100_00, None),
        ("APPLIED", 40_00, held),
        ("APPLIED", 30_00, held),
        ("VOID", 30_00, held),
    ]
    assert books.difference() == [("USD", "0.00", "0.00")]


def test_commit_takes_what_is_left_by_default(books: Books) -> None:
    held = hold(books)
    with books.engine.begin() as connection:
        holds.commit_inflight(connection, held, amount_minor=99_99)
        holds.commit_inflight(connection, held, reference="rest", effective_date=instant("2026-02-01"))
    assert books.rows(
        "SELECT precise_amount, CAST(effective_date AS text) FROM blnk.transactions WHERE reference = 'rest'"
    ) == [(1, "2026-02-01 00:00:00")]
    assert books.inflight("wallet") == "0.00"


def test_over_commit_second_void_and_commit_of_what_is_no_hold_are_refused_and_leave_the_books(books: Books) -> None:
    held = hold(books)
    (applied,) = books.post("source  destination  amount\n@world  wallet  1.00 USD")
    with books.engine.begin() as connection:
        holds.commit_inflight(connection, held, amount_minor=60_00)
        before = connection.execute(text("SELECT * FROM blnk.balances ORDER BY id")).all()
        with pytest.raises(BookingRefused, match=f"^{held} holds 4000 USD, not 4001$"):
            holds.commit_inflight(connection, held, amount_minor=40_01)
        with pytest.raises(BookingRefused, match=f"^{applied} is APPLIED, not INFLIGHT"):
            holds.commit_inflight(connection, applied)
        with pytest.raises(UnknownTransaction, match=r"^there is no transaction txn_none$"):
            holds.void_inflight(connection, "txn_none")
        assert connection.execute(text("SELECT * FROM blnk.balances ORDER BY id")).all() == before
        holds.void_inflight(connection, held)
        with pytest.raises(BookingRefused, match=f"^{held} holds 0 USD, not 0$"):
            holds.void_inflight(connection, held)
    assert books.inflight("wallet") == "0.00"


def test_two_commits_at_once_share_what_is_held(books: Books) -> None:
    held = hold(books)
    outcomes: list[str] = []
    start = threading.Barrier(2)

    def commit() -> None:
        with books.engine.begin() as connection:
            start.wait()
            try:
                holds.commit_inflight(connection, held, amount_minor=70_00)
                outcomes.append("committed")
            except BookingRefused as refusal:
                outcomes.append(str(refusal))

    threads = [threading.Thread(target=commit) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(outcomes) == ["committed", f"{held} holds 3000 USD, not 7000"]
    assert (books.balance("wallet"), books.inflight("wallet")) == ("70.00", "30.00")


def test_refund_moves_the_amount_back_and_leaves_inflight(books: Books) -> None:
    held = hold(books)
    with books.engine.begin() as connection:
        committed = holds.commit_inflight(connection, held, amount_minor=40_00)
        refund = holds.refund(connection, committed, reference="back")
    assert (books.balance("wallet"), books.inflight("wallet")) == ("0.00", "60.00")
    assert transactions(books)[-1] == (refund, "bln_wallet", "bln_world_usd", "APPLIED", 40_00, committed)


def test_refund_of_a_voided_transaction_leaves_inflight(books: Books) -> None:
    held = hold(books)
    with books.engine.begin() as connection:
        voided = holds.void_inflight(connection, held)
        holds.refund(connection, voided)
    assert (books.balance("wallet"), books.inflight("wallet")) == ("-100.00", "0.00")


def test_second_refund_and_refund_of_a_hold_are_refused_and_leave_the_books(books: Books) -> None:
    held = hold(books)
    (paid,) = books.post("source  destination  amount\n@world  wallet  1.00 USD")
    with books.engine.begin() as connection:
        first = holds.refund(connection, paid)
    before = books.stored_rows()
    with books.engine.begin() as connection:
        with pytest.raises(BookingRefused, match=f"^{paid} was refunded before, by {first}$"):
            holds.refund(connection, paid)
        with pytest.raises(BookingRefused, match=f"^{held} is INFLIGHT: only an applied or voided one"):
            holds.refund(connection, held)
    assert books.stored_rows() == before


# Many at once ---------------------------------------------------------------------------------------------------------


def test_four_writers_of_the_same_balances_in_any_order_neither_deadlock_nor_lose_a_write(books: Books) -> None:
    names = ["@world", "a", "b", "c", "d"]
    ids = [books.open(name) for name in names]
    failures: list[BaseException] = []

    def write(writer: int) -> None:
        try:
            for turn in range(15):
                order = ids[(writer + turn) % 5 :] + ids[: (writer + turn) % 5]
                if writer % 2:
                    order.reverse()
                movements = [Movement(one, other, 1_00, "USD") for one, other in pairwise(order)]
                with books.engine.begin() as connection:
                    recording.record_many(connection, movements)
        except BaseException as failure:
            failures.append(failure)

    threads = [threading.Thread(target=write, args=(writer,)) for writer in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    assert books.rows("SELECT count(*) FROM blnk.transactions") == [(240,)]
    assert (
        books.rows(
            "SELECT balance_id FROM blnk.balances WHERE credit_balance - debit_balance <> balance OR version <> 61"
        )
        == []
    )
    assert books.rows("SELECT sum(credit_balance), sum(debit_balance), sum(balance) FROM blnk.balances") == [
        (240_00, 240_00, 0)
    ]


def test_a_writer_that_read_before_is_refused_by_its_version(books: Books) -> None:
    books.open("@world")
    books.open("wallet")
    ((read,),) = books.rows("SELECT version FROM blnk.balances WHERE balance_id = 'bln_wallet'")
    books.post("source  destination  amount\n@world  wallet  1.00 USD")
    written = books.execute(
        "UPDATE blnk.balances SET balance = 999, version = version + 1 "
        "WHERE balance_id = 'bln_wallet' AND version = :version",
        version=read,
    )
    assert written == 0
    assert books.balance("wallet") == "1.00"


def test_stale_row_is_refused(books: Books) -> None:
    books.post("source  destination  amount\n@world  wallet  1.00 USD")
    with books.engine.begin() as connection:
        after_key = recording.newest_recorded_key(connection)
        connection.execute(
            text(
                "INSERT INTO blnk.transactions (transaction_id, source, destination, precise_amount, currency, status) "
                "VALUES ('txn_x', 'bln_world_usd', 'bln_wallet', 5, 'USD', 'APPLIED')"
            )
        )
        read = connection.execute(statement(connection, "books.lock_recorded_balances"), {"after_key": after_key}).all()
        connection.execute(text("UPDATE blnk.balances SET version = version + 1 WHERE balance_id = 'bln_wallet'"))
        with pytest.raises(BookingRefused, match=r"^stale version: 1 of 2 balance rows are not at the version"):
            recording._update_recorded_balances(connection, after_key, read)
        connection.rollback()
    assert books.balance("wallet") == "1.00"


def test_stored_rows_equal_the_sum_of_their_postings(books: Books) -> None:
    held = hold(books)
    books.post("source  destination  amount\n@world  wallet  7.00 USD\nwallet  shop  3.00 USD")
    with books.engine.begin() as connection:
        holds.commit_inflight(connection, held, amount_minor=1)
    for name in ("@world", "wallet", "shop"):
        proven = books.balance(name, at="9999-01-01", from_source=True), books.inflight(name, at="9999-01-01")
        assert proven == (books.balance(name), books.inflight(name))


@pytest.mark.parametrize(
    "name", ["books.update_recorded_balances", "books.lock_recorded_balances", "books.remaining_hold"]
)
def test_updating_balances_reads_only_what_was_recorded(books: Books, name: str) -> None:
    """The plan must find the rows of this transaction by an index, not by scanning the table."""
    books.open("@world")
    books.open("wallet")
    books.execute(
        "INSERT INTO blnk.transactions (transaction_id, source, destination, precise_amount, currency, status, "
        "parent_transaction) SELECT 'txn_' || n, 'bln_world_usd', 'bln_wallet', 1, 'USD', 'QUEUED', "
        "'txn_' || n / 10 FROM generate_series(1, 20000) AS n"
    )
    books.execute(
        "INSERT INTO blnk.balances (balance_id, balance, credit_balance, debit_balance, currency, ledger_id) "
        "SELECT 'bln_' || n, 0, 0, 0, 'USD', 'general_ledger_id' FROM generate_series(1, 20000) AS n"
    )
    books.execute("ANALYZE blnk.transactions, blnk.balances")
    with books.engine.begin() as connection:
        books.post_on(connection, "source  destination  amount\n@world  wallet  1.00 USD")
        plan = connection.execute(
            text(f"EXPLAIN (FORMAT TEXT) {statement(connection, name).text}"),
            {"after_key": 0, "balance_keys": [1, 2], "versions": [2, 2], "hold_key": 7, "hold_id": "txn_7"},
        ).scalars()
        assert [line for line in plan if "Seq Scan" in line] == []
        connection.rollback()


# Balances, owners, ledgers --------------------------------------------------------------------------------------------


def test_balance_with_owner_and_lineage_is_listed_as_stored(books: Books) -> None:
    with books.engine.begin() as connection:
        ledger_id = accounts.create_ledger(connection, name="Customers", meta_data={"branch": 7})
        owner = accounts.create_identity(connection, first_name="Ada", last_name="Eze")
        balance_id = accounts.create_balance(
            connection, currency="BTC-sat", ledger_id=ledger_id, identity_id=owner, track_fund_lineage=True,
            allocation_strategy="LIFO",
        )  # fmt: skip
        listed = accounts.list_balances(connection, limit=10, currency="BTC-sat")
    assert (ledger_id[:4], owner[:4], balance_id[:4]) == ("ldg_", "idt_", "bln_")
    assert books.rows("SELECT track_fund_lineage, allocation_strategy FROM blnk.balances") == [(True, "LIFO")]
    assert books.rows("SELECT meta_data FROM blnk.ledgers WHERE ledger_id = :id", id=ledger_id) == [({"branch": 7},)]
    zero = Decimal(0)
    assert listed == [
        StoredBalance(
            balance_key=listed[0].balance_key,
            balance_id=balance_id,
            currency="BTC-sat",
            **Amounts(zero, zero, zero, zero, zero, zero).as_columns(),
            indicator=None,
            owner="Ada Eze",
            created_at=listed[0].created_at,
        )
    ]


def test_balances_are_listed_page_by_page(books: Books) -> None:
    names = [books.open(f"wallet{number}") for number in range(5)]
    found: list[str] = []
    after_key = 0
    with books.engine.connect() as connection:
        while page := accounts.list_balances(connection, limit=2, after_key=after_key):
            assert len(page) <= 2
            found += [balance.balance_id for balance in page]
            after_key = page[-1].balance_key
        assert [row.balance_id for row in accounts.list_balances(connection, limit=9, balance_id=names[3])] == [
            names[3]
        ]
    assert found == names


def test_internal_balance_is_unique_per_currency(books: Books) -> None:
    with books.engine.begin() as connection:
        accounts.create_balance(connection, currency="USD", indicator="@Fees")
        accounts.create_balance(connection, currency="EUR", indicator="@Fees")
        with pytest.raises(BookingRefused, match=r"^internal balance @Fees in USD exists already$"):
            accounts.create_balance(connection, currency="USD", indicator="@Fees")
    assert books.rows("SELECT indicator, currency FROM blnk.balances ORDER BY id") == [
        ("@Fees", "USD"),
        ("@Fees", "EUR"),
    ]


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        ({"currency": ""}, "'' is no currency"),
        ({"currency": "US D"}, "'US D' is no currency"),
        ({"currency": "X" * 65}, "is no currency"),
        ({"indicator": "Fees"}, "'Fees' is no indicator: write @Name, without spaces"),
        ({"indicator": "@a b"}, "'@a b' is no indicator"),
        (
            {"indicator": "@Fees", "ledger_id": "ldg_own"},
            "@Fees belongs in the General Ledger, not in ldg_own",
        ),
        ({"ledger_id": "ldg_none"}, "there is no ledger_id ldg_none"),
        ({"identity_id": "idt_none"}, "there is no identity_id idt_none"),
        ({"track_fund_lineage": True}, "lineage tracking needs an owner"),
        ({"allocation_strategy": "RANDOM"}, "'RANDOM' is no allocation strategy: FIFO, LIFO, PROPORTIONAL"),
        ({"balance_id": "bln_wallet"}, "balance bln_wallet exists already"),
    ],
)
def test_balance_that_cannot_be_is_refused_and_leaves_nothing(
    books: Books, arguments: dict[str, Any], line: str
) -> None:
    books.open("wallet")
    before = books.stored_rows()
    unknown = {"there is no ledger_id ldg_none": UnknownLedger, "there is no identity_id idt_none": UnknownIdentity}
    error: type[LedgerError] = unknown.get(line, BookingRefused)
    with books.engine.begin() as connection, pytest.raises(error) as refusal:
        accounts.create_balance(connection, **({"currency": "USD"} | arguments))
    assert line in str(refusal.value)
    assert books.stored_rows() == before


def test_nameless_ledgers_and_identities_are_refused(books: Books) -> None:
    with books.engine.begin() as connection:
        with pytest.raises(BookingRefused, match=r"^a ledger needs a name$"):
            accounts.create_ledger(connection, name=" ")
        with pytest.raises(BookingRefused, match=r"^an identity needs a first and a last name$"):
            accounts.create_identity(connection, first_name="Ada", last_name="")
        with pytest.raises(BookingRefused, match=r"^ledger general_ledger_id exists already$"):
            accounts.create_ledger(connection, name="Again", ledger_id="general_ledger_id")
    assert books.rows("SELECT name FROM blnk.ledgers") == [("General Ledger",)]


# The helper of the tests ----------------------------------------------------------------------------------------------


def test_back_dated_transfer_reaches_the_day_it_belongs_to(books: Books) -> None:
    books.post("""
        recorded          effective         source  destination  amount
        2026-01-05 09:00  2026-01-05 09:00  @world  wallet       1200.00 USD
    """)
    books.close_day("2026-01-31")
    books.post("""
        recorded          effective         source  destination  amount
        2026-02-02 10:00  2026-01-20 00:00  wallet  @fees          50.00 USD
    """)
    assert books.balance("wallet", at="2026-02-01", known_at="2026-01-31") == "1200.00"
    assert books.balance("wallet", at="2026-02-01") == "1150.00"
    assert books.balance("wallet", at="2026-02-01", from_source=True) == "1150.00"


def test_created_at_defaults_to_the_moment_of_recording(books: Books) -> None:
    before = datetime.now(UTC).replace(tzinfo=None)
    books.post("source  destination  amount\n@world  wallet  1.00 USD")
    ((created_at,),) = books.rows("SELECT created_at FROM blnk.transactions")
    assert before <= created_at <= datetime.now(UTC).replace(tzinfo=None)
