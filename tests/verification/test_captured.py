"""Balances that are no longer as a run captured them: found by name, while closes and history go on as captured."""

from __future__ import annotations

import pytest
from sqlalchemy import text

from ledger_db.errors import NothingSelected, UnknownBalance
from ledger_db.verification.sweeps import Scope
from tests.testing.books import Books
from tests.testing.oracle import assert_proved
from tests.testing.reconstructions import log, reconstruct, tamper
from tests.testing.verifications import causes, findings_by_name, verify

BOTH: list[Scope] = ["since-close", "from-genesis"]


@pytest.fixture
def closed(books: Books) -> Books:
    """A closed day with a hold, an idle balance, and rows since the close; balances can be deleted."""
    books.execute("ALTER TABLE blnk.balances DISABLE TRIGGER USER")
    for side in ("source", "destination"):
        books.execute(f"ALTER TABLE blnk.transactions DROP CONSTRAINT fk_transactions_{side}")
    books.open("idle")
    books.post("""
        recorded          source  destination  amount      status    reference  parent
        2026-01-29 09:00  @world  wallet       120.00 USD  APPLIED   salary     -
        2026-01-29 10:00  wallet  shop          20.00 USD  INFLIGHT  hold       -
    """)
    books.close_day("2026-01-29")
    books.post("""
        recorded          source  destination  amount      status    reference  parent
        2026-01-30 09:00  wallet  shop          20.00 USD  APPLIED   whole      hold
        2026-01-30 10:00  @world  shop           1.00 USD  APPLIED   tip        -
    """)
    return books


def change_currency(books: Books, name: str = "wallet") -> None:
    books.execute(f"UPDATE blnk.balances SET currency = 'EUR' WHERE balance_id = 'bln_{name}'")


def remove(books: Books, name: str = "wallet") -> None:
    books.execute(f"DELETE FROM blnk.balances WHERE balance_id = 'bln_{name}'")


def replace(books: Books, name: str = "wallet") -> None:
    """Delete the row and make it again as it was, under a new key."""
    columns = (
        "balance_id, indicator, balance, credit_balance, debit_balance, currency, ledger_id, identity_id, created_at, "
        "meta_data, version, inflight_balance, inflight_credit_balance, inflight_debit_balance"
    )
    with books.engine.begin() as connection:
        connection.execute(
            text(
                f"WITH removed AS (DELETE FROM blnk.balances WHERE balance_id = 'bln_{name}' RETURNING *) "
                f"INSERT INTO blnk.balances ({columns}) SELECT {columns} FROM removed"
            )
        )


CHANGES = {"currency_changed": change_currency, "balance_removed": remove, "balance_replaced": replace}


def key_of(books: Books, name: str) -> int:
    ((key,),) = books.rows(
        "SELECT balance_key FROM ledger_eod.captured_balances WHERE balance_id = :id", id=f"bln_{name}"
    )
    return int(key)


def snapshots(books: Books) -> list[tuple[object, ...]]:
    return books.rows(
        "SELECT balance_id, currency, business_date, balance, inflight_balance FROM ledger_eod.daily_balances "
        "ORDER BY business_date, balance_id"
    )


@pytest.mark.parametrize("cause", CHANGES)
@pytest.mark.parametrize("scope", BOTH)
@pytest.mark.parametrize("name", ["wallet", "idle"])
def test_it_is_found_by_name_with_what_it_was_and_is(closed: Books, cause: str, scope: Scope, name: str) -> None:
    key = key_of(closed, name)
    CHANGES[cause](closed, name)
    (found,) = verify(closed, scope).found
    assert (found.cause, found.action, found.balance_id, found.currency) == (cause, "investigate", f"bln_{name}", "USD")
    is_now = None
    if cause != "balance_removed":
        ((key_now,),) = closed.rows("SELECT id FROM blnk.balances WHERE balance_id = :id", id=f"bln_{name}")
        assert (key_now == key) == (cause == "currency_changed")
        is_now = {"key": key_now, "currency": "EUR" if cause == "currency_changed" else "USD"}
    assert found.evidence == {
        "balance_id": f"bln_{name}", "was": {"key": key, "currency": "USD"}, "is": is_now,
    }  # fmt: skip


@pytest.mark.parametrize("cause", CHANGES)
def test_closes_go_on_and_history_is_as_captured(closed: Books, other_books: Books, cause: str) -> None:
    for books in (closed, other_books):
        if books is other_books:  # the same, with nothing changed
            books.open("idle")
            books.post("""
                recorded          source  destination  amount      status    reference  parent
                2026-01-29 09:00  @world  wallet       120.00 USD  APPLIED   salary     -
                2026-01-29 10:00  wallet  shop          20.00 USD  INFLIGHT  hold       -
            """)
            books.close_day("2026-01-29")
            books.post("""
                recorded          source  destination  amount      status    reference  parent
                2026-01-30 09:00  wallet  shop          20.00 USD  APPLIED   whole      hold
                2026-01-30 10:00  @world  shop           1.00 USD  APPLIED   tip        -
            """)
    CHANGES[cause](closed)
    for day in ("2026-01-30", "2026-01-31"):
        for books in (closed, other_books):
            assert books.close_day(day).certified
        assert snapshots(closed) == snapshots(other_books)
        found = [verify(closed, scope) for scope in BOTH]
        assert [causes(each.found) for each in found] == [{(cause, "bln_wallet")}] * 2
        assert verify(closed, "checksums").findings == []
    assert closed.rows("SELECT count(*) FROM ledger_eod.discrepancies") == [(1,)]  # night after night the same
    for at in ("2026-01-30", "2026-01-31", "2026-02-01"):
        assert closed.balance("wallet", at=at) == other_books.balance("wallet", at=at)
        assert closed.inflight("wallet", at=at) == other_books.inflight("wallet", at=at)


def test_a_currency_that_is_changed_back_closes_the_discrepancy(closed: Books) -> None:
    change_currency(closed)
    verify(closed, "since-close")
    closed.execute("UPDATE blnk.balances SET currency = 'USD' WHERE balance_id = 'bln_wallet'")
    sweep = verify(closed, "from-genesis")
    assert (sweep.found, sweep.verification.closed_count) == ([], 1)
    assert_proved(closed, closed.close_day("2026-01-30"))


@pytest.mark.parametrize("scope", BOTH)
def test_what_it_receives_in_its_new_currency_is_cross_currency(closed: Books, scope: Scope) -> None:
    change_currency(closed)
    crossing = closed.insert(
        source=closed.open("@world", "EUR"), destination="bln_wallet", currency="EUR", precise_amount=100,
    )  # fmt: skip
    closed.insert(source="bln_world_usd", destination="bln_wallet", currency="USD", precise_amount=100)
    assert causes(verify(closed, scope).found) == {("currency_changed", "bln_wallet"), ("cross_currency", crossing)}


@pytest.mark.parametrize("scope", BOTH)
def test_its_amounts_are_compared_beside(closed: Books, scope: Scope) -> None:
    replace(closed)
    tamper(closed, "wallet", "credit_balance", 50)
    change_currency(closed, "shop")
    tamper(closed, "shop", "credit_balance", 7)
    remove(closed, "idle")
    found = verify(closed, scope)
    assert causes(found.found) == {
        ("balance_replaced", "bln_wallet"), ("tampered_stored_row", "bln_wallet"),
        ("currency_changed", "bln_shop"), ("tampered_stored_row", "bln_shop"), ("balance_removed", "bln_idle"),
    }  # fmt: skip
    assert found.verification.balance_count == 4


def test_history_of_a_removed_balance_is_compared_from_genesis(closed: Books) -> None:
    remove(closed)
    closed.execute("ALTER TABLE blnk.transactions DISABLE TRIGGER USER")
    closed.execute("DELETE FROM blnk.transactions WHERE transaction_id = 'txn_salary'")
    assert causes(verify(closed, "since-close").found) >= {("balance_removed", "bln_wallet")}
    found = verify(closed, "from-genesis").found
    assert causes(found) == {
        ("balance_removed", "bln_wallet"), ("row_edited_or_removed", "bln_wallet"),
        ("row_edited_or_removed", "bln_world_usd"),
    }  # fmt: skip
    named = findings_by_name(verify(closed, "checksums").found)
    assert set(named) == {f"{subject} on 2026-01-29" for subject in ("raw rows", "bln_wallet", "bln_world_usd")}


@pytest.mark.parametrize("scope", BOTH)
def test_a_restricted_verification_finds_it_by_its_id_and_its_captured_currency(closed: Books, scope: Scope) -> None:
    remove(closed)
    change_currency(closed, "shop")
    replace(closed, "idle")
    for restriction, expected in (
        ({"balance_ids": ["bln_wallet"]}, {"bln_wallet"}),
        ({"balance_ids": ["bln_idle", "bln_shop"]}, {"bln_idle", "bln_shop"}),
        ({"currency": "USD"}, {"bln_wallet", "bln_shop", "bln_idle"}),
        ({"ledger_id": "general_ledger_id"}, {"bln_shop", "bln_idle"}),
    ):
        sweep = verify(closed, scope, **restriction)
        assert {each.balance_id for each in sweep.found} == expected
        assert sweep.verification.closed_count == 0
    with pytest.raises(UnknownBalance, match="bln_nobody"):
        verify(closed, scope, balance_ids=["bln_wallet", "bln_nobody"])
    with pytest.raises(NothingSelected, match=r"^this ledger has no balance in EUR; it has USD$"):
        verify(closed, scope, currency="EUR")


@pytest.mark.parametrize("scope", BOTH)
def test_a_balance_that_was_given_another_id_is_removed_under_its_own(closed: Books, scope: Scope) -> None:
    """No close answers for the row under its new id: its key is taken."""
    closed.execute("UPDATE blnk.balances SET balance_id = 'bln_renamed' WHERE balance_id = 'bln_wallet'")
    closed.post("source  destination  amount\n@world  renamed  1.00 USD")
    assert causes(verify(closed, scope).found) == {("balance_removed", "bln_wallet")}
    assert closed.close_day("2026-01-30").certified
    assert causes(verify(closed, scope).found) == {("balance_removed", "bln_wallet")}


def test_a_balance_that_is_made_and_deleted_between_two_runs_was_nobody(closed: Books) -> None:
    closed.open("passing")
    remove(closed, "passing")
    for scope in BOTH:
        assert verify(closed, scope).findings == []


@pytest.mark.parametrize("change", [change_currency, replace])
def test_its_row_is_not_corrected_before_somebody_looked(closed: Books, change: object) -> None:
    assert callable(change)
    change(closed)
    assert reconstruct(closed, "wallet")["bln_wallet"].verdict == "agrees"
    tamper(closed, "wallet", "credit_balance", 50)
    verify(closed, "since-close")
    rows = closed.stored_rows()
    result = reconstruct(closed, selection="discrepancies")["bln_wallet"]
    assert (result.verdict, result.currency, result.cause) == ("refused", "USD", "tampered_stored_row")
    assert "another key or currency" in result.remark
    assert (closed.stored_rows(), log(closed)) == (rows, [])


def test_a_request_of_a_replaced_row_is_answered(closed: Books) -> None:
    replace(closed)
    closed.execute(
        'UPDATE blnk.balances SET meta_data = CAST(\'{"BLNK_RUN_RECONCILIATION": "SOURCE"}\' AS jsonb) '
        "WHERE balance_id = 'bln_wallet'"
    )
    assert reconstruct(closed, selection="requested")["bln_wallet"].verdict == "agrees"
    assert closed.rows(
        "SELECT meta_data -> 'BLNK_RECONCILIATION_RESULT' ->> 'difference' FROM blnk.balances "
        "WHERE balance_id = 'bln_wallet'"
    ) == [("0",)]
