"""Importing transactions: all rows or none, and every bad row is listed with its line."""

from __future__ import annotations

import re
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import text

from ledger_db.books.csv_import import OPTIONAL_COLUMNS, REQUIRED_COLUMNS, ImportResult, import_transactions
from ledger_db.errors import BadImport
from tests.testing import PROJECT
from tests.testing.books import Books

HEADER = "reference,source,destination,amount,currency"


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "january.csv"


@pytest.fixture
def opened(books: Books) -> Books:
    """Books with the balances that the files name: an internal one per currency, a wallet and a shop."""
    with books.engine.begin() as connection:
        for currency in ("USD", "EUR"):
            books.open("@world", currency, connection=connection)
        books.open("wallet", connection=connection)
        books.open("shop", connection=connection)
        books.open("laden", "EUR", connection=connection)
    return books


def load(books: Books, file: Path, content: str | bytes) -> ImportResult:
    file.write_bytes(content if isinstance(content, bytes) else content.encode())
    with books.engine.begin() as connection:
        return import_transactions(connection, file)


def refused(books: Books, file: Path, content: str | bytes) -> list[str]:
    """The lines of the refusal. The ledger must not change, and the caller's transaction must stay usable."""
    everything = "SELECT * FROM blnk.transactions ORDER BY id"
    before = (books.stored_rows(), books.rows(everything))
    file.write_bytes(content if isinstance(content, bytes) else content.encode())
    with books.engine.begin() as connection:
        with pytest.raises(BadImport) as refusal:
            import_transactions(connection, file)
        assert connection.scalar(text("SELECT to_regclass('import_rows') IS NULL"))
    assert (books.stored_rows(), books.rows(everything)) == before
    return str(refusal.value).splitlines()


def test_import_records_every_row_and_moves_the_balances(opened: Books, file: Path) -> None:
    result = load(
        opened,
        file,
        "reference,source,destination,amount,currency,precision,status,effective_date,created_at,parent_reference,"
        "description\n"
        "in-1,@world,bln_wallet,1200.00,USD,,,2026-01-31T23:30:00-05:00,2026-02-01T05:00:00Z,,salary\n"
        "hold-1,bln_wallet,bln_shop,100,USD,100,INFLIGHT,,,,\n"
        'take-1,bln_wallet,bln_shop,40.5,USD,100,,,,hold-1,"shoes, one pair"\n'
        "back-1,bln_shop,bln_wallet,40.50,USD,100,APPLIED,,,take-1,\n"
        "fine-1,@world,bln_wallet,0.000001,USD,1000000,,,,,\n"
        "wait-1,@world,bln_wallet,5,USD,,QUEUED,,,,\n",
    )
    assert result == ImportResult(transaction_count=6, moved_balance_count=3)
    assert (opened.balance("wallet"), opened.inflight("wallet")) == ("1200.01", "-59.50")
    assert (opened.balance("shop"), opened.inflight("shop")) == ("0.00", "59.50")
    assert opened.difference() == [("EUR", "0.00", "0.00"), ("USD", "0.00", "0.00")]
    assert opened.rows(
        "SELECT t.reference, t.amount, t.precise_amount, t.precision, t.status, CAST(t.effective_date AS text), "
        "parent.reference, t.description FROM blnk.transactions AS t LEFT JOIN blnk.transactions AS parent "
        "ON parent.transaction_id = t.parent_transaction ORDER BY t.id"
    ) == [
        ("in-1", Decimal("1200.00"), 120_000, 100, "APPLIED", "2026-02-01 04:30:00", None, "salary"),
        ("hold-1", 100, 10_000, 100, "INFLIGHT", None, None, None),
        ("take-1", Decimal("40.5"), 4_050, 100, "APPLIED", None, "hold-1", "shoes, one pair"),
        ("back-1", Decimal("40.50"), 4_050, 100, "APPLIED", None, "take-1", None),
        ("fine-1", Decimal("0.000001"), 1, 1_000_000, "APPLIED", None, None, None),
        ("wait-1", 5, 500, 100, "QUEUED", None, None, None),
    ]
    assert opened.rows("SELECT CAST(created_at AS text) FROM blnk.transactions WHERE reference = 'in-1'") == [
        ("2026-02-01 05:00:00",)
    ]


def test_imported_rows_are_proven_by_their_postings(opened: Books, file: Path) -> None:
    load(opened, file, f"{HEADER},status\na,@world,bln_wallet,12.34,USD,\nb,bln_wallet,bln_shop,1,USD,INFLIGHT\n")
    for name in ("@world", "wallet", "shop"):
        assert opened.balance(name, at="9999-01-01", from_source=True) == opened.balance(name)
        assert opened.inflight(name, at="9999-01-01", from_source=True) == opened.inflight(name)


def test_second_import_of_a_file_is_refused_and_leaves_the_ledger(opened: Books, file: Path) -> None:
    content = f"{HEADER}\na,@world,bln_wallet,1,USD\nb,@world,bln_wallet,2,USD\n"
    load(opened, file, content)
    ids = dict(opened.rows("SELECT reference, transaction_id FROM blnk.transactions"))
    assert refused(opened, file, content) == [
        "january.csv: 2 rows cannot be booked, nothing was loaded",
        f"line 2: reference a is in the ledger already, as {ids['a']}",
        f"line 3: reference b is in the ledger already, as {ids['b']}",
    ]


def test_two_imports_in_one_transaction(opened: Books, file: Path) -> None:
    other = file.with_name("february.csv")
    file.write_text(f"{HEADER}\na,@world,bln_wallet,1,USD\n")
    other.write_text(f"{HEADER}\nb,@world,bln_wallet,2,USD\n")
    with opened.engine.begin() as connection:
        import_transactions(connection, file)
        import_transactions(connection, other)
    assert opened.balance("wallet") == "3.00"


@pytest.mark.parametrize(
    ("row", "problem"),
    [
        ("a,@world,bln_wallet,12.345,USD", "amount 12.345 has 3 decimals, precision 100 allows 2"),
        ("a,@world,bln_wallet,0.00,USD", "amount 0.00 is zero"),
        *(
            (f"a,@world,bln_wallet,{bad},USD",
             f"amount {bad!r} is not a plain positive decimal number such as 1200.00")
            for bad in ("-1", "+1", "NaN", "Infinity", "1e3", "1_000", "0x10", "１２", "1.", ".5", "1 000", "$5")
        ),
        ('a,@world,bln_wallet,"1,000.00",USD',
         "amount '1,000.00' is not a plain positive decimal number such as 1200.00"),
        (",@world,bln_wallet,1,USD", "reference is empty"),
        ("a,@world,bln_wallet,,USD", "amount is empty"),
        ("a,@world,bln_wallet,1", "4 columns, the header has 5"),
        ("a,@world,bln_wallet,1,USD,x", "6 columns, the header has 5"),
        ("a,bln_nobody,bln_wallet,1,USD", "there is no source bln_nobody in USD"),
        ("a,@world,@nobody,1,USD", "there is no destination @nobody in USD"),
        ("a,@world,bln_wallet,1,EUR", "destination bln_wallet is kept in USD, not in EUR"),
        ("a,bln_laden,bln_wallet,1,USD", "source bln_laden is kept in EUR, not in USD"),
        ("a\x00b,@world,bln_wallet,1,USD", "reference holds a control character or is not UTF-8"),
        (f"{'x' * 1001},@world,bln_wallet,1,USD", "reference has 1001 characters, 1000 is the most"),
    ],
)  # fmt: skip
def test_bad_row_is_named_and_leaves_the_good_ones_out(opened: Books, file: Path, row: str, problem: str) -> None:
    assert refused(opened, file, f"{HEADER}\ngood,@world,bln_wallet,1,USD\n{row}\n") == [
        "january.csv: 1 row cannot be booked, nothing was loaded",
        f"line 3: {problem}",
    ]


@pytest.mark.parametrize(
    ("column", "value", "problem"),
    [
        ("status", "COMMIT", "status 'COMMIT' is none of APPLIED, INFLIGHT, QUEUED, SCHEDULED, REJECTED, VOID"),
        ("precision", "3", "precision '3' is not a power of ten from 1 to 10^18"),
        ("precision", "0", "precision '0' is not a power of ten from 1 to 10^18"),
        ("precision", "1e2", "precision '1e2' is not a power of ten from 1 to 10^18"),
        ("precision", "10000000000000000000", "precision '10000000000000000000' is not a power of ten from 1 to 10^18"),
        ("effective_date", "2026-01-31T12:00:00",
         "effective_date 2026-01-31T12:00:00 has no offset: write for instance 2026-01-31T12:00:00+00:00"),
        ("created_at", "2026-01-31",
         "created_at 2026-01-31 has no offset: write for instance 2026-01-31T00:00:00+00:00"),
        ("created_at", "yesterday", "created_at 'yesterday' is no ISO 8601 instant such as 2026-01-31T23:59:00+01:00"),
        ("created_at", "2026-02-30T00:00:00Z",
         "created_at '2026-02-30T00:00:00Z' is no ISO 8601 instant such as 2026-01-31T23:59:00+01:00"),
        ("created_at", "9999-12-31T23:59:59-12:00",
         "created_at '9999-12-31T23:59:59-12:00' is no ISO 8601 instant such as 2026-01-31T23:59:00+01:00"),
        ("parent_reference", "none", "there is no parent none before it, in the file or the ledger"),
        ("parent_reference", "a", "there is no parent a before it, in the file or the ledger"),
        ("parent_reference", "later", "there is no parent later before it, in the file or the ledger"),
    ],
)  # fmt: skip
def test_bad_optional_value_is_named(opened: Books, file: Path, column: str, value: str, problem: str) -> None:
    content = f"{HEADER},{column}\na,@world,bln_wallet,1,USD,{value}\nlater,@world,bln_wallet,1,USD,\n"
    assert refused(opened, file, content)[1:] == [f"line 2: {problem}"]


def test_every_bad_row_is_listed_in_the_order_of_the_lines(opened: Books, file: Path) -> None:
    assert refused(
        opened,
        file,
        f"{HEADER}\n"
        "a,bln_nobody,bln_wallet,1,USD\n"
        "b,@world,bln_wallet,zero,USD\n"
        "c,@world,bln_wallet,1,USD\n"
        "c,@world,bln_wallet,1,USD\n"
        "c,@world,bln_nobody,1,USD\n",
    ) == [
        "january.csv: 4 rows cannot be booked, nothing was loaded",
        "line 2: there is no source bln_nobody in USD",
        "line 3: amount 'zero' is not a plain positive decimal number such as 1200.00",
        "line 5: reference c is on line 4 already",
        "line 6: reference c is on line 4 already",
    ]


def test_list_of_bad_rows_is_cut_at_50_and_counted(opened: Books, file: Path) -> None:
    rows = "".join(
        f"r{number},@world,{'bln_nobody' if number % 2 else 'bln_wallet'},{number % 2},USD\n" for number in range(120)
    )
    lines = refused(opened, file, f"{HEADER}\n{rows}")
    assert lines[0] == "january.csv: 120 rows cannot be booked, nothing was loaded"
    assert [line.split(":")[0] for line in lines[1:51]] == [f"line {number}" for number in range(2, 52)]
    assert lines[51:] == ["and 70 more"]


@pytest.mark.parametrize(
    ("content", "line"),
    [
        ("", "january.csv is empty: the first line names the columns reference, source, destination, amount, currency"),
        (f"{HEADER}\n", "january.csv has a header and no rows: nothing was loaded"),
        (f"{HEADER}\n\n\r\n", "january.csv has a header and no rows: nothing was loaded"),
        ("reference,source,amount\na,b,1\n",
         "january.csv line 1: the header lacks destination, currency; it must name them, separated by commas"),
        ("reference;source;destination;amount;currency\n",
         "january.csv line 1: the header lacks reference, source, destination, amount, currency; it must name them, "
         "separated by commas"),
        (f"{HEADER},colour\n",
         "january.csv line 1: unknown column 'colour'; optional are precision, status, effective_date, created_at, "
         "parent_reference, description"),
        (f"{HEADER},amount\n", "january.csv line 1: the header names a column twice"),
        (f"{HEADER}\na,@world,bln_wallet,1,USD\n".encode("utf-16"),
         "january.csv line 1: not UTF-8 text; save the file as CSV UTF-8"),
    ],
)  # fmt: skip
def test_file_without_rows_or_columns_is_refused_in_one_line(
    opened: Books, file: Path, content: str | bytes, line: str
) -> None:
    assert refused(opened, file, content) == [line]


def test_bytes_that_are_not_utf_8_are_named_by_their_line(opened: Books, file: Path) -> None:
    content = f"{HEADER},description\na,@world,bln_wallet,1,USD,\nb,@world,bln_wallet,1,USD,Käse\n".encode("latin-1")
    assert refused(opened, file, content)[1:] == ["line 3: description holds a control character or is not UTF-8"]


def test_quote_that_never_ends_is_named_by_its_line(opened: Books, file: Path) -> None:
    assert refused(opened, file, f'{HEADER}\na,@world,bln_wallet,1,USD\n"b,@world,bln_wallet,1,USD\n')[1:] == [
        "line 3: not CSV from here on: unexpected end of data"
    ]


@pytest.mark.parametrize("name", ["missing.csv", "."])
def test_file_that_cannot_be_read_is_refused(opened: Books, tmp_path: Path, name: str) -> None:
    with opened.engine.begin() as connection, pytest.raises(BadImport, match=r"^cannot read .*: (No such|Is a dir)"):
        import_transactions(connection, tmp_path / name)


def test_byte_order_mark_windows_line_ends_spaces_and_column_order_do_not_matter(opened: Books, file: Path) -> None:
    load(
        opened,
        file,
        "\ufeffcurrency, amount ,reference,source,destination\r\nUSD, 12.50 ,a,@world, bln_wallet\r\n\r\n"
        "USD,1,b,@world,bln_wallet",
    )
    assert opened.balance("wallet") == "13.50"


def test_amounts_beyond_64_bits_stay_exact(opened: Books, file: Path) -> None:
    huge = 2**80
    load(opened, file, f"{HEADER},precision\na,@world,bln_wallet,{huge},USD,1\nb,@world,bln_wallet,{huge},USD,1\n")
    assert opened.rows("SELECT balance FROM blnk.balances WHERE balance_id = 'bln_wallet'") == [(2**81,)]


def test_internal_balance_is_the_one_of_the_rows_currency(opened: Books, file: Path) -> None:
    load(opened, file, f"{HEADER}\na,@world,bln_wallet,1,USD\nb,@world,bln_laden,2,EUR\n")
    assert (opened.balance("@world"), opened.balance("@world", currency="EUR")) == ("-1.00", "-2.00")


def test_over_commit_and_commit_of_other_balances_are_refused(opened: Books, file: Path) -> None:
    opened.post("""
        source  destination  amount      status    reference  parent
        wallet  shop         100.00 USD  INFLIGHT  hold       -
        wallet  shop          30.00 USD  APPLIED   part       hold
    """)
    parents = f"{HEADER},status,parent_reference\n"
    assert refused(
        opened,
        file,
        f"{parents}a,bln_wallet,bln_shop,50,USD,,hold\nb,bln_wallet,bln_shop,20.01,USD,VOID,hold\n"
        "c,bln_shop,bln_wallet,1,USD,,part\n",
    ) == [
        "january.csv: 1 row cannot be booked, nothing was loaded",
        "line 3: 1 minor units more than hold hold had left",
    ]
    assert refused(opened, file, f"{parents}a,@world,bln_shop,50,USD,,hold\n")[1:] == [
        "line 2: hold hold moves USD from bln_wallet to bln_shop"
    ]
    load(opened, file, f"{parents}a,bln_wallet,bln_shop,50,USD,,hold\nb,bln_wallet,bln_shop,20,USD,VOID,hold\n")
    assert (opened.balance("shop"), opened.inflight("shop")) == ("80.00", "0.00")


def test_hold_and_its_commits_may_come_in_one_file(opened: Books, file: Path) -> None:
    parents = f"{HEADER},status,parent_reference\n"
    hold = "h,bln_wallet,bln_shop,10,USD,INFLIGHT,\n"
    assert refused(opened, file, f"{parents}{hold}a,bln_wallet,bln_shop,6,USD,,h\nb,bln_wallet,bln_shop,6,USD,,h\n")[
        1:
    ] == ["line 4: 200 minor units more than hold h had left"]
    load(opened, file, f"{parents}{hold}a,bln_wallet,bln_shop,6,USD,,h\nb,bln_wallet,bln_shop,4,USD,VOID,h\n")
    assert (opened.balance("shop"), opened.inflight("shop")) == ("6.00", "0.00")


def test_many_rows_are_checked_set_by_set(opened: Books, file: Path) -> None:
    rows = "".join(
        f"h{number},@world,bln_wallet,1,USD,INFLIGHT,\nc{number},@world,bln_wallet,1,USD,APPLIED,h{number}\n"
        for number in range(10_000)
    )
    result = load(opened, file, f"{HEADER},status,parent_reference\n{rows}")
    assert result == ImportResult(20_000, 2)
    assert (opened.balance("wallet"), opened.inflight("wallet")) == ("10000.00", "0.00")
    columns: list[tuple[Any, ...]] = opened.rows("SELECT max(version) FROM blnk.balances")
    assert columns == [(2,)]


def test_the_documented_columns_are_those_that_are_read() -> None:
    page = (PROJECT / "docs" / "import.md").read_text()
    documented = [
        (name, meaning.startswith("optional"))
        for names, meaning in re.findall(r"^\| (`.*?) \| (.*) \|$", page, re.MULTILINE)
        for name in re.findall(r"`(\w+)`", names)
    ]
    assert documented == [(name, False) for name in REQUIRED_COLUMNS] + [(name, True) for name in OPTIONAL_COLUMNS]
