"""What is known is told by keys: what runs counted, released and left pending; each case of it by itself.

Every balance is asked for from its anchor and from source: without an edit of a counted row both say the same.
"""

from __future__ import annotations

import pytest

from ledger_db.errors import UnknowableAt
from ledger_db.history.balance_at import balance_at
from tests.testing.books import Books, instant
from tests.testing.oracle import interim


def both(books: Books, name: str, at: str, known_at: str | int | None = None) -> tuple[str, str]:
    """Posted and on hold, from the anchor and from source alike."""
    answers = {
        (
            books.balance(name, at=at, known_at=known_at, from_source=from_source),
            books.inflight(name, at=at, known_at=known_at, from_source=from_source),
        )
        for from_source in (False, True)
    }
    assert len(answers) == 1, answers
    return answers.pop()


def edit(books: Books, statement: str) -> None:
    """Change rows as the reference allows it; the own copy of the ledger refuses it."""
    books.execute(f"SET LOCAL session_replication_role = replica; {statement}")


# Pending rows ---------------------------------------------------------------------------------------------------------


def test_what_was_pending_at_a_close_counts_only_after_it(books: Books) -> None:
    books.post("""
        recorded          effective         source  destination  amount
        2026-01-31 09:00  -                 @world  wallet       10.00 USD
        2026-01-31 09:00  2026-02-01 00:00  @world  wallet        2.00 USD
    """)
    uncountable = books.insert(
        destination="bln_wallet", precise_amount=500, created_at="2026-01-30 09:00", stored_too=False
    )
    run = books.close_day("2026-01-31")
    assert both(books, "wallet", "2026-01-31 08:00") == ("5.00", "0.00")
    assert both(books, "wallet", "2026-01-31 08:00", run.run_id) == ("0.00", "0.00")
    assert both(books, "wallet", "2026-02-01", run.run_id) == ("10.00", "0.00")
    assert both(books, "wallet", "2026-02-01 00:00:01", run.run_id) == ("17.00", "0.00")
    edit(books, f"UPDATE blnk.transactions SET source = 'bln_world_usd' WHERE transaction_id = '{uncountable}'")
    assert both(books, "wallet", "2026-02-01") == ("15.00", "0.00")
    books.close_day("2026-02-01")
    assert both(books, "wallet", "2026-02-01", run.run_id) == ("10.00", "0.00")
    assert both(books, "wallet", "2026-02-02", "2026-02-01") == ("17.00", "0.00")


@pytest.mark.parametrize("others", [0, 50])  # few pending rows are read, many are looked up in the balance's own
def test_a_pending_row_that_is_dated_back_counts_from_its_new_date(books: Books, others: int) -> None:
    books.post("""
        recorded          effective         source  destination  amount    reference
        2026-01-31 09:00  -                 @world  wallet       10.00 USD  first
        2026-01-31 09:00  2026-03-01 00:00  @world  wallet        2.00 USD  moved
    """)
    books.post("\n".join(["recorded  effective  source  destination  amount"] + others * [
        "2026-01-31 09:00  2026-03-01 00:00  @world  other  1.00 USD"
    ]))  # fmt: skip
    books.close_day("2026-01-30")
    run = books.close_day("2026-01-31")
    edit(books, "UPDATE blnk.transactions SET effective_date = '2026-01-30 12:00' WHERE reference = 'moved'")
    assert both(books, "wallet", "2026-01-30 12:00") == ("0.00", "0.00")
    for at, amount in (("2026-01-30 12:01", "2.00"), ("2026-01-31", "2.00"), ("2026-02-01", "12.00")):
        assert both(books, "wallet", at) == (amount, "0.00")
        assert both(books, "wallet", at, run.run_id) == (f"{float(amount) - 2:.2f}", "0.00")
    assert both(books, "wallet", "2026-02-01 12:00", run.run_id) == ("12.00", "0.00")
    assert both(books, "wallet", "2026-03-02") == ("12.00", "0.00")


def test_a_pending_row_that_was_deleted_and_recorded_again_counts_once(books: Books) -> None:
    books.post("""
        recorded          effective         source  destination  amount     reference
        2026-01-31 09:00  -                 @world  wallet       10.00 USD  first
        2026-01-31 09:00  2026-03-01 00:00  @world  wallet        2.00 USD  again
    """)
    books.close_day("2026-01-31")
    edit(
        books,
        "CREATE TEMP TABLE kept ON COMMIT DROP AS SELECT * FROM blnk.transactions WHERE reference = 'again'; "
        "DELETE FROM blnk.transactions WHERE reference = 'again'; "
        "UPDATE kept SET effective_date = '2026-01-20', recorded_xid = pg_current_xact_id(); "
        "INSERT INTO blnk.transactions OVERRIDING SYSTEM VALUE SELECT * FROM kept",
    )
    for at, amount in (("2026-01-21", "2.00"), ("2026-02-01", "12.00"), ("2026-03-02", "12.00")):
        assert both(books, "wallet", at) == (amount, "0.00")
    books.close_day("2026-02-01")
    assert both(books, "wallet", "2026-02-02") == ("12.00", "0.00")


# Rows that were edited after they were counted ------------------------------------------------------------------------


def test_an_edit_of_a_counted_row_moves_no_figure_at_the_end_of_a_date(books: Books) -> None:
    books.post("""
        recorded          source  destination  amount     reference
        2026-01-30 09:00  @world  wallet       10.00 USD  forward
        2026-01-31 09:00  @world  wallet        2.00 USD  back
        2026-02-01 09:00  @world  wallet        1.00 USD  still
    """)
    for day in ("2026-01-30", "2026-01-31", "2026-02-01"):
        books.close_day(day)
    ends = {"2026-01-31": "10.00", "2026-02-01": "12.00", "2026-02-02": "13.00"}
    assert {at: both(books, "wallet", at)[0] for at in ends} == ends
    edit(books, "UPDATE blnk.transactions SET effective_date = '2026-01-31 18:00' WHERE reference = 'forward'")
    edit(books, "UPDATE blnk.transactions SET effective_date = '2026-01-29 18:00' WHERE reference = 'back'")
    assert {at: books.balance("wallet", at=at) for at in ends} == ends
    assert books.balance("wallet", at="2026-01-31 19:00") == "10.00"
    assert books.balance("wallet", at="2026-01-31", from_source=True) == "2.00"  # the difference is the edits'


# Holds ----------------------------------------------------------------------------------------------------------------


def test_a_hold_that_is_effective_after_its_commit_is_released_from_its_own_date_on(books: Books) -> None:
    books.post("""
        recorded          effective         source  destination  amount    status    reference  parent
        2026-01-31 08:00  2026-02-01 12:00  wallet  shop         9.00 USD  INFLIGHT  hold       -
        2026-01-31 09:00  -                 wallet  shop         9.00 USD  APPLIED   commit     hold
    """)
    first = books.close_day("2026-01-31")

    def assert_told() -> None:
        assert both(books, "shop", "2026-01-31 10:00") == ("9.00", "0.00")
        assert both(books, "shop", "2026-02-01 12:00") == ("9.00", "0.00")
        assert both(books, "shop", "2026-02-01 12:01") == ("9.00", "0.00")
        assert both(books, "shop", "2026-02-01", first.run_id) == ("9.00", "0.00")
        assert both(books, "shop", "2026-02-01 13:00", first.run_id) == ("9.00", "0.00")

    assert_told()
    ((waiting,),) = books.rows(
        "SELECT count(*) FROM ledger_eod.run_keys WHERE run_id = :run AND key_set = 'waiting'", run=first.run_id
    )
    assert waiting == 1
    second = books.close_day("2026-02-01")
    assert_told()
    assert both(books, "shop", "2026-02-02", second.run_id) == ("9.00", "0.00")


def test_a_release_is_known_once_both_its_rows_are(books: Books) -> None:
    books.post("""
        recorded          effective         source  destination  amount    status    reference  parent
        2026-01-31 08:00  2026-02-01 12:00  wallet  shop         9.00 USD  INFLIGHT  hold       -
    """)
    first = books.close_day("2026-01-31")
    books.post("""
        recorded          effective         source  destination  amount    status    reference  parent
        2026-02-01 09:00  2026-01-31 09:00  wallet  shop         4.00 USD  APPLIED   commit     hold
    """)
    assert both(books, "shop", "2026-02-01 13:00", first.run_id) == ("0.00", "9.00")
    assert both(books, "shop", "2026-02-01 13:00") == ("4.00", "5.00")
    assert both(books, "shop", "2026-02-01 11:00") == ("4.00", "0.00")
    # counted late, and its hold released for the later date, by one run: it never waits
    second = books.close_day("2026-02-01")
    assert books.rows("SELECT count(*) FROM ledger_eod.run_keys WHERE key_set = 'waiting'") == [(0,)]
    for known_at in (None, second.run_id):
        assert both(books, "shop", "2026-02-01 11:00", known_at) == ("4.00", "0.00")
        assert both(books, "shop", "2026-02-01 13:00", known_at) == ("4.00", "5.00")
    assert both(books, "shop", "2026-02-01 13:00", first.run_id) == ("0.00", "9.00")


def test_a_hold_that_arrives_late_is_released_late(books: Books) -> None:
    books.post("""
        recorded          source  destination  amount    reference
        2026-01-30 09:00  wallet  shop         1.00 USD  r
    """)
    books.insert(
        source="bln_wallet", destination="bln_shop", precise_amount=900, created_at="2026-01-31 09:00",
        parent_transaction="txn_hold", stored_too=False,
    )  # fmt: skip
    first = books.close_day("2026-01-31")  # its parent is not there: nobody can tell what it is
    assert both(books, "shop", "2026-02-01") == ("10.00", "0.00")
    assert both(books, "shop", "2026-02-01", first.run_id) == ("1.00", "0.00")
    books.insert(
        source="bln_wallet", destination="bln_shop", precise_amount=900, created_at="2026-01-30 10:00",
        reference="hold", status="INFLIGHT", stored_too=False,
    )  # fmt: skip
    for at, amounts in (("2026-01-31", ("1.00", "9.00")), ("2026-02-01", ("10.00", "0.00"))):
        assert both(books, "shop", at) == amounts
    books.close_day("2026-02-01")
    for at, amounts in (("2026-01-31", ("1.00", "9.00")), ("2026-02-01", ("10.00", "0.00"))):
        assert both(books, "shop", at) == amounts
        assert both(books, "shop", at, "2026-02-01") == amounts


# Runs -----------------------------------------------------------------------------------------------------------------


def test_an_interim_run_knows_what_it_counted_itself(books: Books) -> None:
    books.post("""
        recorded          source  destination  amount
        2026-01-31 09:00  @world  wallet       10.00 USD
    """)
    books.close_day("2026-01-31")
    books.post("""
        recorded          effective         source  destination  amount
        2026-02-01 09:00  -                 @world  wallet        2.00 USD
        2026-02-01 09:00  2026-01-20 09:00  @world  wallet        1.00 USD
        2026-02-01 09:00  2026-02-01 18:00  @world  wallet        4.00 USD
    """)
    run = interim(books, "2026-02-01 10:00")
    books.post("""
        recorded          source  destination  amount
        2026-02-01 09:30  @world  wallet       8.00 USD
    """)
    close = books.close_day("2026-02-01")
    assert close.base_run_id == run.base_run_id
    for at, amount in (
        ("2026-01-21", "1.00"), ("2026-02-01", "11.00"), ("2026-02-01 10:00", "13.00"), ("2026-02-01 19:00", "17.00"),
    ):  # fmt: skip
        assert both(books, "wallet", at, run.run_id) == (amount, "0.00")
    assert both(books, "wallet", "2026-02-01 10:00", close.run_id) == ("21.00", "0.00")


def test_a_run_that_did_not_store_its_keys_is_refused(books: Books) -> None:
    books.post("""
        recorded          source  destination  amount
        2026-01-31 09:00  @world  wallet       10.00 USD
    """)
    acted, idle = books.close_day("2026-01-31"), books.close_day("2026-02-01")
    assert both(books, "wallet", "2026-02-02", idle.run_id) == ("10.00", "0.00")
    books.execute("SET LOCAL session_replication_role = replica; DELETE FROM ledger_eod.run_keys")
    for run in (acted, idle):
        with pytest.raises(UnknowableAt, match=r"did not store which rows it counted: .* ledger_eod\.daily_balances"):
            books.balance("wallet", at="2026-02-01", known_at=run.run_id)
    # a restored copy of it: nothing tells what the snapshots have, so the answer comes from source
    books.execute("UPDATE ledger_eod.clusters SET system_identifier = '1'")
    assert both(books, "wallet", "2026-02-02") == ("10.00", "0.00")


# Balances -------------------------------------------------------------------------------------------------------------


def test_a_balance_whose_row_is_gone_is_answered_for_as_it_was_captured(books: Books) -> None:
    books.post("""
        recorded          source  destination  amount
        2026-01-31 09:00  @world  wallet       10.00 USD
    """)
    books.close_day("2026-01-31")
    edit(books, "DELETE FROM blnk.balances WHERE balance_id = 'bln_wallet'")
    assert both(books, "wallet", "2026-02-01") == ("10.00", "0.00")
    books.open("wallet", "EUR")  # made again, under another key
    with books.engine.connect() as connection:
        answer = balance_at(connection, "bln_wallet", instant("2026-02-01"))
    assert (answer.balance, answer.currency) == (1000, "USD")
