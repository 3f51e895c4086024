"""What a base has not counted, of whatever date: it is in the stored rows, and no verification takes it for drift."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import pytest

from ledger_db.verification.drift import check_transactions
from ledger_db.verification.sweeps import Scope, open_verification
from tests.testing.books import Books, instant, unguarded
from tests.testing.clusters import digest_again
from tests.testing.reconstructions import propose, reconstruct, tamper, verdicts
from tests.testing.verifications import causes, verify

SCOPES: list[Scope] = ["since-close", "from-genesis", "checksums"]


def assert_no_drift(books: Books) -> None:
    """All scopes, and a recalculation of every balance, agree with the stored rows and with the closes."""
    for scope in SCOPES:
        assert verify(books, scope).findings == [], scope
    names = [name for (name,) in books.rows("SELECT balance_id FROM blnk.balances ORDER BY id")]
    assert set(verdicts(books, propose(books, *names, mode="report")).values()) == {"agrees"}


def sets_of(books: Books, key_set: str, business_date: str) -> set[str]:
    """The transactions in a set of a close."""
    return {
        transaction_id
        for (transaction_id,) in books.rows(
            "SELECT transaction_id FROM ledger_eod.runs JOIN ledger_eod.run_keys USING (run_id) "
            "JOIN blnk.transactions ON block = id >> 13 AND keys @> CAST(id AS bigint) "
            "WHERE key_set = CAST(:key_set AS ledger_eod.key_set) AND business_date = CAST(:day AS date) "
            "AND kind = 'close'",
            key_set=key_set, day=business_date,
        )
    }  # fmt: skip


def naive(written: str) -> Any:
    return instant(written).replace(tzinfo=None)


def test_what_is_effective_later(books: Books) -> None:
    books.post("""
        recorded          effective         source  destination  amount     status    reference  parent
        2026-01-29 09:00  -                 @world  wallet       9.00 USD   APPLIED   now        -
        2026-01-29 09:00  2026-01-31 00:00  @world  wallet       8.00 USD   APPLIED   soon       -
        2026-01-29 09:00  2026-03-01 00:00  wallet  shop         7.00 USD   INFLIGHT  standing   -
    """)
    for day in ("2026-01-29", "2026-01-30", "2026-01-31"):
        books.close_day(day)
        assert_no_drift(books)
    assert sets_of(books, "pending", "2026-01-30") == {"txn_soon", "txn_standing"}
    assert sets_of(books, "pending", "2026-01-31") == {"txn_standing"}


def test_a_release_that_waits_for_its_hold(books: Books) -> None:
    """The child is counted, its hold is not: the posting is in the base, the release is not."""
    books.post("""
        recorded          effective         source  destination  amount     status    reference  parent
        2026-01-29 09:00  2026-01-31 09:00  wallet  shop         9.00 USD   INFLIGHT  hold       -
        2026-01-29 10:00  -                 wallet  shop         5.00 USD   APPLIED   part       hold
        2026-01-29 11:00  -                 wallet  shop         1.00 USD   VOID      rest       hold
    """)
    books.close_day("2026-01-29")
    assert sets_of(books, "waiting", "2026-01-29") == {"txn_part", "txn_rest"}
    assert_no_drift(books)
    books.post("""
        recorded          source  destination  amount     status    reference  parent
        2026-01-30 10:00  wallet  shop         2.00 USD   APPLIED   more       hold
    """)
    assert_no_drift(books)
    for scope in SCOPES[:2]:  # some balances only
        assert verify(books, scope, balance_ids=["bln_shop"]).findings == []
    tamper(books, "shop", "inflight_credit_balance", 100)
    for scope in SCOPES[:2]:
        (found,) = verify(books, scope).found
        assert (found.cause, found.difference) == ("tampered_stored_row", "0|0|100|0")
    assert reconstruct(books, "shop")["bln_shop"].verdict == "corrected"
    for day in ("2026-01-30", "2026-01-31", "2026-02-01"):
        books.close_day(day)
        assert_no_drift(books)
    assert sets_of(books, "waiting", "2026-01-30") == {"txn_part", "txn_rest", "txn_more"}
    assert sets_of(books, "released", "2026-01-31") == {"txn_part", "txn_rest", "txn_more"}


def test_what_cannot_be_counted(books: Books) -> None:
    """The application applied the sides that it found; closes count a row when both of its sides can be counted."""
    for side in ("source", "destination"):
        books.execute(f"ALTER TABLE blnk.transactions DROP CONSTRAINT fk_transactions_{side}")
    world, wallet = books.open("@world"), books.open("wallet")
    columns: dict[str, Any] = {"currency": "USD", "created_at": naive("2026-01-29 09:00")}
    rows: dict[str, dict[str, Any]] = {
        "one_sided": {"source": world, "destination": None, "precise_amount": Decimal(100)},
        "unknown_balance": {"source": "bln_nobody", "destination": wallet, "precise_amount": Decimal(200)},
        "unknown_parent": {
            "source": world, "destination": wallet, "precise_amount": Decimal(300), "parent_transaction": "txn_none",
        },
        "amount_missing": {"source": world, "destination": wallet},
        "amount_not_integral": {"source": world, "destination": wallet, "amount": Decimal("1.005")},
        "unknown_status": {
            "source": world, "destination": wallet, "precise_amount": Decimal(400), "status": "COMMIT",
        },
    }  # fmt: skip
    for reference, row in rows.items():
        books.insert(**columns, **row, reference=reference, stored_too=reference != "unknown_balance")
    for column in ("credit_balance", "balance"):  # of that row, what the application found
        tamper(books, "wallet", column, 200)
    books.post("source  destination  amount\n@world  wallet  5.00 USD")
    books.close_day("2026-01-29")
    assert sets_of(books, "pending", "2026-01-29") >= {f"txn_{reference}" for reference in rows}
    assert_no_drift_but_of_amounts(books)
    unguarded(
        books, "blnk.transactions",
        f"UPDATE blnk.transactions SET destination = '{wallet}' WHERE reference = 'one_sided'",
    )  # fmt: skip
    for column in ("credit_balance", "balance"):
        tamper(books, "wallet", column, 100)
    for day in ("2026-01-30", "2026-01-31"):
        books.close_day(day)
        assert_no_drift_but_of_amounts(books)


def assert_no_drift_but_of_amounts(books: Books) -> None:
    for scope in SCOPES:
        assert verify(books, scope).findings == [], scope


def test_a_pending_row_that_is_gone_is_drift_of_the_stored_row(books: Books) -> None:
    books.post("""
        recorded          effective         source  destination  amount     reference
        2026-01-29 09:00  -                 @world  wallet       9.00 USD   now
        2026-01-29 09:00  2026-03-01 00:00  @world  wallet       8.00 USD   standing
    """)
    books.close_day("2026-01-29")
    unguarded(books, "blnk.transactions", "DELETE FROM blnk.transactions WHERE reference = 'standing'")
    for close in (None, "2026-01-30"):
        if close is not None:
            books.close_day(close)
        for scope in SCOPES[:2]:
            found = verify(books, scope).found
            assert causes(found) == {("tampered_stored_row", name) for name in ("bln_wallet", "bln_world_usd")}
        assert verify(books, "checksums").findings == []


def test_a_low_key_that_commits_late(books: Books) -> None:
    """Its key lies below the base's highest: it is found by the transaction that recorded it."""
    for name in ("wallet", "shop"):
        books.open(name)
    with books.engine.connect() as connection, connection.begin():
        books.post_on(connection, "recorded  source  destination  amount\n2026-01-29 09:00  @late  shop  1.00 USD")
        books.post("recorded  source  destination  amount\n2026-01-29 09:00  @world  wallet  5.00 USD")
        books.close_day("2026-01-29")
        assert_no_drift(books)
    assert_no_drift(books)
    tamper(books, "shop", "credit_balance", 3)
    assert causes(verify(books, "since-close").found) == {("tampered_stored_row", "bln_shop")}
    assert reconstruct(books, "shop")["bln_shop"].verdict == "corrected"
    books.close_day("2026-01-30")
    assert_no_drift(books)


def test_an_id_that_was_given_by_hand_is_found_whoever_looks(books: Books) -> None:
    """A row without the transaction that recorded it, below the highest key: no close will count it."""
    books.post("recorded  source  destination  amount\n2026-01-29 09:00  @world  wallet  5.00 USD")
    books.execute("SELECT setval(pg_get_serial_sequence('blnk.transactions', 'id'), 1000)")
    books.post("recorded  source  destination  amount\n2026-01-29 09:00  @world  wallet  5.00 USD")
    books.close_day("2026-01-29")
    books.insert(
        id=500, source="bln_world_usd", destination="bln_wallet", currency="USD", precise_amount=Decimal(100),
        created_at=naive("2026-01-29 09:00"), recorded_xid=None, stored_too=False,
    )  # fmt: skip
    for column in ("credit_balance", "balance"):
        tamper(books, "wallet", column, 100)
    tamper(books, "@world", "debit_balance", 100)
    tamper(books, "@world", "balance", -100)
    balances = {("row_edited_or_removed", name) for name in ("bln_wallet", "bln_world_usd")}
    for scope in SCOPES[:2]:
        found = verify(books, scope).found
        named = {("never_counted", "txn_raw3")} if scope == "from-genesis" else set()
        assert causes(found) == balances | named
        assert {each.evidence.get("stored_row_agrees_with") for each in found} <= {"raw rows", None}
    assert reconstruct(books, "wallet")["bln_wallet"].verdict == "agrees"


def test_rows_that_no_close_will_look_at_are_named_and_those_that_one_will_are_not(books: Books) -> None:
    books.post("recorded  source  destination  amount\n2026-01-29 09:00  @world  wallet  5.00 USD")
    books.execute("SELECT setval(pg_get_serial_sequence('blnk.transactions', 'id'), 1000)")
    books.post("recorded  source  destination  amount\n2026-01-29 09:00  @world  wallet  5.00 USD")
    books.close_day("2026-01-29")
    row = {
        "source": "bln_world_usd", "destination": "bln_wallet", "currency": "USD", "precise_amount": Decimal(100),
        "created_at": naive("2026-01-30 09:00"),
    }  # fmt: skip
    books.insert(**row, id=500, reference="left_empty", recorded_xid=None)
    books.insert(**row, id=501, reference="given", recorded_xid="3")
    books.insert(**row, id=502, reference="honest")
    never = {("never_counted", "txn_left_empty"), ("never_counted", "txn_given")}
    for day in ("2026-01-30", "2026-01-31"):
        found = causes(verify(books, "from-genesis").found)
        assert {pair for pair in found if pair[0] == "never_counted"} == never
        books.close_day(day)
    assert sets_of(books, "counted", "2026-01-30") == {"txn_honest"}


def test_a_new_row_without_the_transaction_that_recorded_it(books: Books) -> None:
    books.post("recorded  source  destination  amount\n2026-01-29 09:00  @world  wallet  5.00 USD")
    books.close_day("2026-01-29")
    books.post("recorded  source  destination  amount  reference\n2026-01-30 09:00  @world  wallet  1.00 USD  new")
    unguarded(books, "blnk.transactions", "UPDATE blnk.transactions SET recorded_xid = NULL WHERE reference = 'new'")
    assert_no_drift(books)
    books.close_day("2026-01-30")
    assert_no_drift(books)


# In another cluster ---------------------------------------------------------------------------------------------------


def move_to_another_cluster(books: Books, recorded_xid: str) -> None:
    """As if the ledger had been dumped in another cluster and restored here: its ids mean nothing here."""
    books.execute("ALTER TABLE ledger_eod.clusters DISABLE TRIGGER USER")
    books.execute("UPDATE ledger_eod.clusters SET system_identifier = '1'")
    books.execute("UPDATE ledger_eod.opening_balances SET system_identifier = '1'")
    books.execute("ALTER TABLE blnk.transactions DISABLE TRIGGER USER")
    books.execute(f"UPDATE blnk.transactions SET recorded_xid = CAST('{recorded_xid}' AS xid8)")
    books.execute("ALTER TABLE blnk.transactions ENABLE TRIGGER USER")
    with books.engine.begin() as connection:
        digest_again(connection)


@pytest.mark.parametrize("recorded_xid", ["3", "900000000"])  # visible in every cut here, and in none
def test_a_restored_copy_is_verified_at_once_and_its_chain_goes_on(books: Books, recorded_xid: str) -> None:
    books.post("""
        recorded          effective         source  destination  amount     status    reference  parent
        2026-01-29 09:00  -                 @world  wallet       90.00 USD  APPLIED   now        -
        2026-01-29 09:00  2026-03-01 00:00  @world  wallet       8.00 USD   APPLIED   standing   -
        2026-01-29 09:00  -                 wallet  shop         9.00 USD   INFLIGHT  hold       -
        2026-01-29 09:00  2026-01-31 09:00  wallet  shop         7.00 USD   INFLIGHT  later      -
        2026-01-29 10:00  -                 wallet  shop         2.00 USD   APPLIED   early      later
    """)
    books.close_day("2026-01-29")
    books.post("""
        recorded          source  destination  amount     status    reference  parent
        2026-01-30 09:00  wallet  shop         5.00 USD   APPLIED   part       hold
    """)
    move_to_another_cluster(books, recorded_xid)
    assert_no_drift(books)
    books.post("""
        recorded          source  destination  amount     status    reference  parent
        2026-01-30 10:00  wallet  shop         1.00 USD   VOID      void       hold
        2026-01-30 11:00  wallet  shop         1.00 USD   APPLIED   more       later
    """)
    assert_no_drift(books)
    tamper(books, "wallet", "credit_balance", 3)
    for scope in SCOPES[:2]:
        assert causes(verify(books, scope).found) == {("tampered_stored_row", "bln_wallet")}
    assert reconstruct(books, "wallet")["bln_wallet"].verdict == "corrected"
    for day in ("2026-01-30", "2026-01-31", "2026-02-01"):
        books.close_day(day)
        assert_no_drift(books)


def test_a_reconstruction_may_be_the_first_in_a_restored_copy(books: Books) -> None:
    books.post("recorded  source  destination  amount\n2026-01-29 09:00  @world  wallet  5.00 USD")
    books.close_day("2026-01-29")
    books.post("recorded  source  destination  amount\n2026-01-30 09:00  @world  wallet  1.00 USD")
    move_to_another_cluster(books, "900000000")
    tamper(books, "wallet", "credit_balance", 3)
    assert reconstruct(books, "wallet")["bln_wallet"].verdict == "corrected"
    assert_no_drift(books)


def test_transactions_are_checked_once_in_another_cluster_too(books: Books) -> None:
    books.post("""
        recorded          source  destination  amount     status    reference  parent
        2026-01-29 09:00  payer   payee        7.00 USD   INFLIGHT  small      -
        2026-01-29 09:01  payer   payee        9.00 USD   APPLIED   whole      small
    """)
    books.close_day("2026-01-29")
    assert ("over_commit", "txn_small") in causes(verify(books, "since-close").found)
    books.post("""
        recorded          source  destination  amount     status    reference  parent
        2026-01-30 09:00  payer   payee        7.00 USD   INFLIGHT  again      -
        2026-01-30 09:01  payer   payee        9.00 USD   APPLIED   beyond     again
    """)
    move_to_another_cluster(books, "900000000")
    with books.engine.begin() as connection:
        opened = open_verification(connection, scope="since-close")
        findings = check_transactions(connection, opened.verification_id)
    assert [each.evidence["transaction_ids"][0] for each in findings] == ["txn_again"]
