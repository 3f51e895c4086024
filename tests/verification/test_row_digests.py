"""The digests of a closed date's rows: who paid whom, how much, when and in what state, and nothing else."""

from __future__ import annotations

import pytest
from sqlalchemy import text

from ledger_db.verification.sweeps import Scope
from tests.testing.books import Books
from tests.testing.verifications import causes, verify

ON_THE_DATE = {("row_edited_or_removed", "raw rows on 2026-01-30")}

OTHERS: tuple[Scope, ...] = ("since-close", "from-genesis")


@pytest.fixture
def closed(books: Books) -> Books:
    """A closed day with two payments of one amount, a row that says little, and one that is dated."""
    books.post("""
        recorded             effective         source  destination  amount      reference
        2026-01-30 09:00     -                 @world  wallet        10.00 USD  first
        2026-01-30 09:00     -                 @world  shop          10.00 USD  second
        2026-01-30 09:00:01  2026-01-30 08:00  wallet  shop           1.00 USD  dated
    """)
    books.insert(
        transaction_id="txn_bare", source="bln_world_usd", destination="bln_wallet", precise_amount=200,
        created_at="2026-01-30 10:00", reference=None, precision=None,
    )  # fmt: skip
    books.insert(
        transaction_id="txn_refused", status="REJECTED", created_at="2026-01-30 10:00", reference=None, precision=None,
    )  # fmt: skip
    books.close_day("2026-01-30")
    return books


def edit(books: Books, change: str, reference: str) -> None:
    """An edit by somebody whom no trigger and no foreign key stops."""
    with books.engine.begin() as connection:
        connection.execute(text("SET LOCAL session_replication_role = replica"))
        edited = connection.execute(
            text(f"UPDATE blnk.transactions SET {change} WHERE transaction_id = :id"), {"id": f"txn_{reference}"}
        )
    assert edited.rowcount == 1


def found(books: Books) -> set[tuple[str, str]]:
    return causes(verify(books, "checksums").found)


def test_destinations_of_two_equal_amounts_that_are_crossed_are_found(closed: Books) -> None:
    """Every sum stays as it is, of the date and of each balance: only the rows say something else."""
    edit(closed, "destination = 'bln_shop'", "first")
    edit(closed, "destination = 'bln_wallet'", "second")
    assert found(closed) == ON_THE_DATE
    for scope in OTHERS:
        assert verify(closed, scope).findings == []
    edit(closed, "destination = 'bln_wallet'", "first")
    edit(closed, "destination = 'bln_shop'", "second")
    assert found(closed) == set()


@pytest.mark.parametrize("reference", ["first", "dated"])
@pytest.mark.parametrize("moved", ["+ interval '0.13 s'", "- interval '1 microsecond'"])
def test_a_created_at_that_is_moved_a_little_is_found(closed: Books, reference: str, moved: str) -> None:
    edit(closed, f"created_at = created_at {moved}", reference)
    assert found(closed) == ON_THE_DATE


def test_an_effective_instant_that_is_written_out_is_no_difference(closed: Books) -> None:
    """What a migration of the application may do. An edit after it is found as one before it."""
    before = [closed.balance("wallet", at=at) for at in ("2026-01-30 09:30", "2026-01-31")]
    with closed.engine.begin() as connection:
        connection.execute(text("SET LOCAL session_replication_role = replica"))
        written = "UPDATE blnk.transactions SET effective_date = created_at WHERE effective_date IS NULL"
        assert connection.execute(text(written)).rowcount == 4
    for scope in (*OTHERS, "checksums"):
        assert verify(closed, scope).findings == []
    assert closed.close_day("2026-01-31").certified
    assert [closed.balance("wallet", at=at) for at in ("2026-01-30 09:30", "2026-01-31")] == before
    assert found(closed) == set()
    edit(closed, "effective_date = effective_date + interval '0.13 s'", "first")
    assert found(closed) == ON_THE_DATE


@pytest.mark.parametrize("change", ["description = 'x'", "meta_data = '{\"a\": 1}'", "hash = 'x'", "chain_seq = 1"])
def test_what_may_change_later_is_not_digested(closed: Books, change: str) -> None:
    edit(closed, change, "first")
    assert found(closed) == set()


@pytest.mark.parametrize(
    ("reference", "change"),
    [
        *(("bare", f"{column} = ''") for column in ("reference", "currency", "parent_transaction")),
        *(("refused", f"{column} = ''") for column in ("source", "destination", "reference", "currency")),
        ("refused", "parent_transaction = ''"),
        *(("refused", f"{column} = 0") for column in ("amount", "precise_amount", "precision")),
    ],
)
def test_nothing_is_not_the_same_as_empty(closed: Books, reference: str, change: str) -> None:
    edit(closed, change, reference)
    assert found(closed) == ON_THE_DATE


DELIMITERS = {"none": "", "comma": ",", "quotes": '","', "unit": "\x1f", "line": "\n"}


@pytest.mark.parametrize(
    ("left", "right"),
    [
        ("transaction_id", "source"), ("source", "destination"), ("destination", "reference"),
        ("reference", "currency"),
    ],
)  # fmt: skip
def test_what_moves_from_one_column_into_the_next_is_found_whatever_stands_between(
    books: Books, left: str, right: str
) -> None:
    """The rows have a status that never counts, so that nothing but their digest tells of it."""
    columns = ["source", "destination", "reference", "currency", "parent_transaction"]
    books.open("wallet")
    with books.engine.begin() as connection:
        connection.execute(text("SET LOCAL session_replication_role = replica"))
        for name, delimiter in DELIMITERS.items():
            row = {"transaction_id": f"txn_{name}", "precision": None, **dict.fromkeys(columns)}
            row |= {left: f"txn_{name}{delimiter}two", right: f"three_{name}"}
            connection.execute(
                text(
                    f"INSERT INTO blnk.transactions ({', '.join(row)}, status, created_at) "
                    f"VALUES ({', '.join(f':{column}' for column in row)}, 'REJECTED', '2026-01-30 09:00')"
                ),
                row,
            )
    books.close_day("2026-01-30")
    assert found(books) == set()
    for name, delimiter in DELIMITERS.items():
        before = (f"txn_{name}{delimiter}two", f"three_{name}")
        after = (f"txn_{name}", f"two{delimiter}three_{name}")
        move(books, left, right, before, after)
        assert found(books) == ON_THE_DATE, name
        move(books, left, right, after, before)
        assert found(books) == set()


def move(books: Books, left: str, right: str, before: tuple[str, str], after: tuple[str, str]) -> None:
    with books.engine.begin() as connection:
        connection.execute(text("SET LOCAL session_replication_role = replica"))
        moved = connection.execute(
            text(
                f"UPDATE blnk.transactions SET ({left}, {right}) = (:new, :rest) WHERE ({left}, {right}) = (:old, :was)"
            ),
            {"new": after[0], "rest": after[1], "old": before[0], "was": before[1]},
        )
    assert moved.rowcount == 1


@pytest.mark.parametrize(
    "change",
    [
        "reference = 'firs', currency = 'tUSD'",  # an amount stands between them
        "currency = 'US', status = 'DAPPLIED'",
        "status = 'APPLIE', parent_transaction = 'D'",
        "amount = precise_amount, precise_amount = amount",
        "precise_amount = precision, precision = precise_amount",
        "parent_transaction = currency, currency = NULL",
        "source = destination, destination = source",
    ],
)
def test_values_of_a_row_that_are_exchanged_or_moved_on_are_found(closed: Books, change: str) -> None:
    edit(closed, change, "first")
    assert found(closed) >= ON_THE_DATE


def test_a_rate_that_is_edited_is_found(books: Books) -> None:
    books.execute("ALTER TABLE blnk.transactions ADD COLUMN rate double precision")
    books.post("""
        recorded          source  destination  amount     reference
        2026-01-30 09:00  @world  wallet       10.00 USD  first
        2026-01-30 09:01  @world  wallet       10.00 USD  second
    """)
    edit(books, "rate = 2", "second")
    books.close_day("2026-01-30")
    assert found(books) == set()
    edit(books, "rate = 1", "first")  # what no rate means
    assert found(books) == set()
    for reference, rate, before in (("first", 2, 1), ("second", 1, 2), ("second", 3, 2)):
        edit(books, f"rate = {rate}", reference)
        assert found(books) == ON_THE_DATE | {("row_edited_or_removed", "bln_wallet on 2026-01-30")}
        edit(books, f"rate = {before}", reference)
        assert found(books) == set()
