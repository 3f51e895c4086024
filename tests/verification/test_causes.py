"""Every cause is planted, and found exactly: that cause, on those balances, with its evidence."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import pytest
from sqlalchemy import text

from ledger_db.books.accounts import create_balance, create_ledger
from ledger_db.errors import DeclarationRefused, NothingSelected, NothingToVerify, UnknownBalance
from ledger_db.verification.discrepancies import close_unseen, list_discrepancies, record_findings
from ledger_db.verification.opening_balances import declare_opening_balance
from ledger_db.verification.sweeps import Scope, open_verification
from tests.testing.books import Books, Ledger, instant, unguarded
from tests.testing.verifications import causes, findings_by_name, judge_all, verify


@pytest.fixture
def healthy(books: Books) -> Books:
    """Three days, two of them closed, holds and a queued row among them, and rows of every kind since the close."""
    books.post("""
        recorded          effective         source  destination  amount      status    reference  parent
        2026-01-29 09:00  -                 @world  wallet       120.00 USD  APPLIED   salary     -
        2026-01-29 10:00  -                 wallet  shop          20.00 USD  INFLIGHT  hold       -
        2026-01-29 11:00  -                 wallet  shop           5.00 USD  APPLIED   part       hold
        2026-01-29 12:00  -                 wallet  shop           3.00 USD  QUEUED    queue      -
        2026-01-29 12:00  -                 wallet  shop           3.00 USD  APPLIED   queue_q    queue
        2026-01-29 12:00  2026-03-01 00:00  @world  wallet         8.00 USD  APPLIED   future     -
        2026-01-30 12:00  -                 @world  purse          9.00 EUR  APPLIED   euros      -
    """)
    books.close_day("2026-01-29")
    books.close_day("2026-01-30")
    books.post("""
        recorded          effective         source  destination  amount      status    reference  parent
        2026-01-31 09:00  -                 wallet  shop           1.00 USD  APPLIED   today      -
        2026-01-31 09:00  2026-01-29 08:00  @world  shop           2.00 USD  APPLIED   late       -
        2026-01-31 09:00  2026-04-01 00:00  shop    wallet         4.00 USD  APPLIED   later      -
        2026-01-31 10:00  -                 wallet  shop           2.00 USD  VOID      void       hold
        2026-01-31 11:00  -                 wallet  shop           6.00 USD  QUEUED    waiting    -
        2026-01-31 11:00  -                 wallet  shop           6.00 USD  REJECTED  refused    -
    """)
    return books


SCOPES: list[Scope] = ["since-close", "from-genesis", "checksums"]
BOTH: list[Scope] = ["since-close", "from-genesis"]


@pytest.mark.parametrize("scope", SCOPES)
def test_nothing_is_found_in_healthy_books(healthy: Books, scope: Scope) -> None:
    sweep = verify(healthy, scope)
    assert sweep.findings == []
    assert (sweep.verification.status, sweep.verification.explained_percent) == ("finished", "100")
    assert healthy.rows("SELECT count(*) FROM ledger_eod.verification_sums") == [(0,)]


# The stored row -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("scope", BOTH)
@pytest.mark.parametrize(
    "column", ["credit_balance", "debit_balance", "inflight_credit_balance", "inflight_debit_balance"]
)
def test_a_tampered_stored_row(healthy: Books, scope: Scope, column: str) -> None:
    healthy.execute(f"UPDATE blnk.balances SET {column} = {column} + 50 WHERE balance_id = 'bln_shop'")
    (found,) = verify(healthy, scope).found
    assert (found.cause, found.action, found.balance_id) == ("tampered_stored_row", "correct", "bln_shop")
    assert found.evidence["drift"][column] == "50"
    assert {amount for name, amount in found.evidence["drift"].items() if name != column} == {"0"}


@pytest.mark.parametrize("scope", BOTH)
@pytest.mark.parametrize("column", ["balance", "inflight_balance"])
def test_a_balance_that_is_not_credit_minus_debit(healthy: Books, scope: Scope, column: str) -> None:
    healthy.execute(f"UPDATE blnk.balances SET {column} = {column} - 7 WHERE balance_id = 'bln_wallet'")
    (found,) = verify(healthy, scope).found
    assert (found.cause, found.action, found.balance_id) == ("balance_not_credit_minus_debit", "correct", "bln_wallet")
    assert found.gross_difference == 7


def test_a_row_written_without_a_close_to_witness_stays_unexplained(books: Books) -> None:
    books.post("recorded  source  destination  amount\n2026-01-29 09:00  @world  wallet  1.00 USD")
    books.execute("UPDATE blnk.balances SET credit_balance = 7, balance = 7 WHERE balance_id = 'bln_wallet'")
    sweep = verify(books, "from-genesis")
    (found,) = sweep.found
    assert (found.cause, found.action, found.evidence["drift"]["credit_balance"]) == (
        "unexplained",
        "investigate",
        "-93",
    )
    assert [int(sweep.verification.gross_volume), int(sweep.verification.unexplained_volume)] == [200, 93]
    assert sweep.verification.explained_percent == "53.5000"
    with pytest.raises(NothingToVerify, match="no certified close"):
        verify(books, "since-close")


@pytest.mark.parametrize("scope", BOTH)
def test_an_amount_in_major_units_taken_for_minor_ones(healthy: Books, scope: Scope) -> None:
    """What the reference's own reconcile leaves behind where precise_amount is NULL: 123.45 instead of 12345."""
    row = healthy.insert(
        source="bln_world_usd", destination="bln_wallet", currency="USD", created_at=naive("2026-01-31 12:00"),
        amount=Decimal("123.45"), precise_amount=None,
    )  # fmt: skip
    healthy.execute(
        "UPDATE blnk.balances SET credit_balance = credit_balance - 12345 + 123.45, "
        "balance = balance - 12345 + 123.45 WHERE balance_id = 'bln_wallet'"
    )
    (found,) = verify(healthy, scope).found
    assert (found.cause, found.action, found.balance_id) == ("wrong_scale", "correct", "bln_wallet")
    assert found.evidence["transaction_ids"] == [row]
    assert found.gross_difference == Decimal("12221.55")


def naive(written: str) -> Any:
    return instant(written).replace(tzinfo=None)


@pytest.mark.parametrize("scope", BOTH)
def test_a_legacy_rate_cannot_be_proved_and_can_be_declared(ledger: Ledger, scope: Scope) -> None:
    with ledger.engine.begin() as connection:
        connection.execute(text("ALTER TABLE blnk.transactions ADD COLUMN rate double precision DEFAULT 1"))
    books = Books(ledger)
    converted = books.insert(
        source=books.open("@world"), destination=books.open("wallet"), currency="USD",
        created_at=naive("2026-01-29 12:00"), precise_amount=Decimal(1001), rate=0.5, stored_too=False,
    )  # fmt: skip
    books.execute("UPDATE blnk.balances SET debit_balance = 1001, balance = -1001 WHERE balance_id = 'bln_world_usd'")
    books.execute("UPDATE blnk.balances SET credit_balance = 501, balance = 501 WHERE balance_id = 'bln_wallet'")
    books.close_day("2026-01-29")
    found = verify(books, scope).found
    assert causes(found) == {("legacy_rate", "bln_wallet"), ("legacy_rate", "bln_world_usd")}
    assert {(each.action, *each.evidence["transaction_ids"]) for each in found} == {("declare_unprovable", converted)}
    for balance_id in ("bln_wallet", "bln_world_usd"):
        with books.engine.begin() as connection:
            declare_opening_balance(connection, balance_id, declared_by="ada", reason="old rates")
    sweep = verify(books, scope)
    assert (sweep.findings, sweep.verification.closed_count) == ([], 2)


@pytest.mark.parametrize("scope", BOTH)
def test_an_imported_amount_is_declared_and_proved_from_there(healthy: Books, scope: Scope) -> None:
    healthy.execute(
        "UPDATE blnk.balances SET credit_balance = 500, balance = 500 WHERE balance_id = :id", id=healthy.open("old")
    )
    assert causes(verify(healthy, scope).found) == {("tampered_stored_row", "bln_old")}
    with healthy.engine.begin() as connection:
        declared = declare_opening_balance(
            connection, "bln_old", declared_by="ada", reason="migrated from the old books"
        )
    assert declared.amounts.credit == 500
    healthy.post("source  destination  amount\n@world  old  1.00 USD")
    assert verify(healthy, scope).findings == []
    healthy.execute("UPDATE blnk.balances SET credit_balance = 601, balance = 601 WHERE balance_id = 'bln_old'")
    (found,) = verify(healthy, scope).found
    assert found.gross_difference == 1


def test_a_declaration_needs_who_and_why_and_a_sound_row(healthy: Books) -> None:
    healthy.execute("UPDATE blnk.balances SET balance = balance + 1 WHERE balance_id = 'bln_shop'")
    for balance_id, who, why, refused in (
        ("bln_wallet", " ", "x", DeclarationRefused),
        ("bln_wallet", "ada", "", DeclarationRefused),
        ("bln_none", "ada", "x", UnknownBalance),
        ("bln_shop", "ada", "x", DeclarationRefused),
    ):
        with healthy.engine.begin() as connection, pytest.raises(refused):
            declare_opening_balance(connection, balance_id, declared_by=who, reason=why)
    assert healthy.rows("SELECT count(*) FROM ledger_eod.opening_balances") == [(0,)]


# Transactions ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("scope", BOTH)
@pytest.mark.parametrize("parent_status", ["QUEUED", "REJECTED"])
def test_an_orphan_commit(healthy: Books, scope: Scope, parent_status: str) -> None:
    """A hold that was queued first is committed through the queued row: the hold itself stays for ever."""
    healthy.post(f"""
        recorded          source  destination  amount     status           reference  parent
        2026-01-31 12:00  wallet  shop         7.00 USD   {parent_status}  asked      -
        2026-01-31 12:01  wallet  shop         7.00 USD   INFLIGHT         copy       asked
        2026-01-31 12:02  wallet  shop         7.00 USD   APPLIED          commit     asked
    """)
    healthy.execute(  # what the application did: it took the commit off the hold
        "UPDATE blnk.balances SET inflight_credit_balance = inflight_credit_balance - 700, "
        "inflight_balance = inflight_balance - 700 WHERE balance_id = 'bln_shop'"
    )
    found = verify(healthy, scope).found
    assert causes(found) == {("orphan_commit", "txn_commit"), ("orphan_commit", "bln_shop")}
    assert {each.action for each in found} == {"investigate"}
    by_subject = findings_by_name(found)
    assert by_subject["txn_commit"].evidence["transaction_ids"] == ["txn_commit", "txn_asked"]
    assert by_subject["bln_shop"].evidence["transaction_ids"] == ["txn_commit"]


def settle_early(books: Books, status: str = "APPLIED") -> None:
    """A hold is asked for, and committed or voided through its queued row before the queue has carried it out."""
    books.insert(
        source="bln_wallet", destination="bln_shop", currency="USD", created_at=naive("2026-01-31 12:00"),
        precise_amount=Decimal(700), status="QUEUED", reference="asked", meta_data='{"inflight": true}',
    )  # fmt: skip
    books.post(f"""
        recorded          source  destination  amount     status    reference  parent
        2026-01-31 12:01  wallet  shop         7.00 USD   {status}  settling   asked
    """)
    books.execute(  # what the application does: it takes the amount off whatever else is on hold
        "UPDATE blnk.balances SET inflight_credit_balance = inflight_credit_balance - 700, "
        "inflight_balance = inflight_balance - 700 WHERE balance_id = 'bln_shop'"
    )


SETTLED_THROUGH_THE_QUEUE = {("txn_settling", "investigate"), ("bln_shop", "investigate")}


@pytest.mark.parametrize("scope", BOTH)
@pytest.mark.parametrize("status", ["APPLIED", "VOID"])
@pytest.mark.parametrize("outcome", ["INFLIGHT", "REJECTED"])
def test_an_early_commit_waits_for_the_queue_and_is_an_orphan_then(
    healthy: Books, scope: Scope, status: str, outcome: str
) -> None:
    settle_early(healthy, status)
    waiting = verify(healthy, scope).found
    assert {(each.cause, each.action) for each in waiting} == {("early_commit", "wait")}
    assert causes(waiting) == {("early_commit", "txn_settling"), ("early_commit", "bln_shop")}
    assert findings_by_name(waiting)["txn_settling"].evidence["transaction_ids"] == ["txn_settling", "txn_asked"]
    healthy.post(f"""
        recorded          source  destination  amount     status     reference  parent
        2026-01-31 12:02  wallet  shop         7.00 USD   {outcome}  asked_q    asked
    """)
    carried_out = verify(healthy, scope)
    assert {each.cause for each in carried_out.found} == {"orphan_commit"}
    assert {(each.subject, each.action) for each in carried_out.found} == SETTLED_THROUGH_THE_QUEUE
    assert carried_out.verification.closed_count == 2
    assert {each.difference for each in carried_out.found} == {each.difference for each in waiting}


@pytest.mark.parametrize("scope", BOTH)
def test_an_early_commit_is_an_orphan_once_a_close_has_passed(healthy: Books, scope: Scope) -> None:
    settle_early(healthy)
    verify(healthy, "since-close")
    healthy.close_day("2026-01-31")
    found = verify(healthy, scope)
    assert {(each.subject, each.action) for each in found.found} == SETTLED_THROUGH_THE_QUEUE
    assert found.verification.closed_count == 2


def test_without_a_close_nobody_says_how_long_to_wait(books: Books) -> None:
    for name in ("wallet", "shop"):
        books.open(name)
    settle_early(books)
    found = verify(books, "from-genesis").found
    assert {(each.subject, each.action) for each in found} == SETTLED_THROUGH_THE_QUEUE


def test_a_queued_row_carried_out_in_parts_is_no_orphan_and_one_carried_out_twice_is(healthy: Books) -> None:
    healthy.post("""
        recorded          source  destination  amount     status   reference  parent
        2026-01-31 12:00  wallet  shop         7.00 USD   QUEUED   asked      -
        2026-01-31 12:01  wallet  shop         3.00 USD   APPLIED  one        asked
        2026-01-31 12:02  wallet  shop         4.00 USD   APPLIED  two        asked
    """)
    assert verify(healthy, "since-close").findings == []
    healthy.post("""
        recorded          source  destination  amount     status   reference  parent
        2026-01-31 12:03  wallet  shop         7.00 USD   APPLIED  again      asked
    """)
    found = verify(healthy, "since-close").found
    assert causes(found) == {("orphan_commit", f"txn_{name}") for name in ("one", "two", "again")}


@pytest.mark.parametrize("scope", BOTH)
def test_an_over_commit(healthy: Books, scope: Scope) -> None:
    healthy.post("""
        recorded          source  destination  amount     status    reference  parent
        2026-01-31 12:00  payer   payee        7.00 USD   INFLIGHT  small      -
        2026-01-31 12:01  payer   payee        5.00 USD   APPLIED   first      small
        2026-01-31 12:02  payer   payee        6.00 USD   APPLIED   second     small
    """)
    found = verify(healthy, scope).found
    assert causes(found) == {("over_commit", "txn_small"), ("over_commit", "bln_payer"), ("over_commit", "bln_payee")}
    evidence = findings_by_name(found)["txn_small"].evidence
    assert (evidence["amount"], evidence["allowed"]) == ("1100", "700")
    assert evidence["transaction_ids"] == ["txn_small", "txn_first", "txn_second"]


def test_an_over_commit_that_the_stored_hold_stopped_at_zero(healthy: Books) -> None:
    healthy.post("""
        recorded          source  destination  amount     status    reference  parent
        2026-01-31 12:00  payer   payee        7.00 USD   INFLIGHT  small      -
        2026-01-31 12:02  payer   payee        9.00 USD   APPLIED   whole      small
    """)
    healthy.execute(
        "UPDATE blnk.balances SET inflight_credit_balance = 0, inflight_balance = 0 WHERE balance_id = 'bln_payee'"
    )
    assert causes(verify(healthy, "since-close").found) == {
        ("over_commit", "txn_small"), ("over_commit", "bln_payer"), ("over_commit", "bln_payee"),
    }  # fmt: skip


@pytest.mark.parametrize("scope", BOTH)
def test_a_hold_settled_on_another_balance_is_negative_inflight(healthy: Books, scope: Scope) -> None:
    healthy.post("""
        recorded          source  destination  amount     status    reference  parent
        2026-01-31 12:00  payer   payee        7.00 USD   INFLIGHT  small      -
        2026-01-31 12:02  payer   other        7.00 USD   APPLIED   astray     small
    """)
    (found,) = verify(healthy, scope).found
    assert (found.cause, found.balance_id) == ("negative_inflight", "bln_other")


@pytest.mark.parametrize("scope", BOTH)
@pytest.mark.parametrize("applied_twice", [True, False])
def test_a_duplicate_reference(healthy: Books, scope: Scope, applied_twice: bool) -> None:
    healthy.execute("ALTER TABLE blnk.transactions DROP CONSTRAINT uq_transactions_reference")
    columns: dict[str, Any] = {
        "source": "bln_wallet", "destination": "bln_shop", "currency": "USD", "created_at": naive("2026-01-31 12:00"),
        "precise_amount": Decimal(40), "reference": "invoice",
    }  # fmt: skip
    healthy.insert(**columns, transaction_id="txn_1")
    healthy.insert(**columns, transaction_id="txn_2", stored_too=applied_twice)
    found = verify(healthy, scope).found
    balances = set() if applied_twice else {("duplicate_reference", "bln_wallet"), ("duplicate_reference", "bln_shop")}
    assert causes(found) == {("duplicate_reference", "txn_2")} | balances
    assert findings_by_name(found)["txn_2"].evidence["transaction_ids"] == ["txn_1", "txn_2"]


@pytest.mark.parametrize("scope", BOTH)
@pytest.mark.parametrize("applied", [True, False])
def test_a_cross_currency_row(healthy: Books, scope: Scope, applied: bool) -> None:
    crossing = healthy.insert(
        source="bln_wallet", destination="bln_purse", currency="USD", created_at=naive("2026-01-31 12:00"),
        precise_amount=Decimal(1000), stored_too=applied,
    )  # fmt: skip
    balances = set() if applied else {("cross_currency", "bln_wallet"), ("cross_currency", "bln_purse")}
    assert causes(verify(healthy, scope).found) == {("cross_currency", crossing)} | balances


@pytest.mark.parametrize("scope", BOTH)
def test_an_old_hold_without_precise_amount_and_precision_is_no_over_commit(healthy: Books, scope: Scope) -> None:
    pair: dict[str, Any] = {"source": "bln_wallet", "destination": "bln_shop", "currency": "USD"}
    healthy.insert(
        **pair, created_at=naive("2026-01-31 12:00"), amount=Decimal(700), precise_amount=None, precision=0,
        status="INFLIGHT", reference="small",
    )  # fmt: skip
    healthy.insert(
        **pair, created_at=naive("2026-01-31 12:01"), precise_amount=Decimal(700), parent_transaction="txn_small"
    )
    assert verify(healthy, scope).findings == []


@pytest.mark.parametrize("scope", BOTH)
def test_what_was_declared_does_not_excuse_what_is_tampered_with_later(healthy: Books, scope: Scope) -> None:
    healthy.insert(
        source="bln_wallet", destination="bln_shop", currency="USD", created_at=naive("2026-01-31 12:00"),
        amount=Decimal("1.005"), precise_amount=None, stored_too=False,
    )  # fmt: skip
    healthy.execute("UPDATE blnk.balances SET credit_balance = credit_balance + 100, balance = balance + 100 "
                    "WHERE balance_id = 'bln_shop'")  # fmt: skip
    (found,) = verify(healthy, scope).found
    assert (found.cause, found.action) == ("wrong_scale", "declare_unprovable")
    with healthy.engine.begin() as connection:
        declare_opening_balance(connection, "bln_shop", declared_by="ada", reason="too many decimals")
    assert verify(healthy, scope).findings == []
    healthy.execute("UPDATE blnk.balances SET credit_balance = credit_balance + 5 WHERE balance_id = 'bln_shop'")
    (found,) = verify(healthy, scope).found
    assert (found.cause, found.gross_difference) == ("tampered_stored_row", Decimal(5))


def test_a_self_transfer_and_lineage_shadows_are_no_drift(healthy: Books) -> None:
    healthy.post("""
        recorded          source            destination       amount     status
        2026-01-31 09:00  wallet            wallet            5.00 USD   APPLIED
        2026-01-31 09:00  wallet            wallet            5.00 USD   INFLIGHT
        2026-01-31 09:00  aggregate_stripe  shadow_stripe     80.00 USD  APPLIED
    """)
    for scope in SCOPES:
        assert verify(healthy, scope).findings == []


# Rows edited or removed -----------------------------------------------------------------------------------------------


def test_a_deleted_transaction_is_named_by_date_and_balance(healthy: Books) -> None:
    unguarded(healthy, "blnk.transactions", "DELETE FROM blnk.transactions WHERE transaction_id = 'txn_part'")
    assert verify(healthy, "since-close").findings == []  # the close and the stored rows agree: the day's proof holds
    found = verify(healthy, "checksums").found
    assert causes(found) == {
        ("row_edited_or_removed", subject)
        for subject in ("raw rows on 2026-01-29", "bln_wallet on 2026-01-29", "bln_shop on 2026-01-29")
    }
    shop = findings_by_name(found)["bln_shop on 2026-01-29"]
    assert (shop.evidence["postings_then"], shop.evidence["postings_now"]) == (3, 2)
    rows = findings_by_name(found)["raw rows on 2026-01-29"].evidence
    assert (rows["missing_count"], rows["moved_transaction_ids"]) == (1, [])
    assert shop.stored is not None
    assert shop.proven is not None
    assert [str(shop.stored.credit), str(shop.proven.credit)] == ["800", "300"]
    genesis = verify(healthy, "from-genesis").found
    assert causes(genesis) == {("row_edited_or_removed", "bln_wallet"), ("row_edited_or_removed", "bln_shop")}
    assert {each.evidence["stored_row_agrees_with"] for each in genesis} == {"snapshot"}


def test_an_edited_effective_date_is_named_on_the_date_it_was_counted_for(healthy: Books) -> None:
    """It stays counted there: no figure moves, and the transaction is named."""
    edit(healthy, "salary", "effective_date = '2026-01-30 10:00'")
    found = findings_by_name(verify(healthy, "checksums").found)
    assert set(found) == {f"{what} on 2026-01-29" for what in ("raw rows", "bln_wallet", "bln_world_usd")}
    assert {each.cause for each in found.values()} == {"row_edited_or_removed"}
    assert {tuple(each.evidence["moved_transaction_ids"]) for each in found.values()} == {("txn_salary",)}
    assert found["raw rows on 2026-01-29"].evidence["missing_count"] == 0
    wallet = found["bln_wallet on 2026-01-29"]
    assert wallet.stored == wallet.proven
    assert wallet.gross_difference == 0
    for scope in BOTH:
        assert verify(healthy, scope).findings == []


def edit(books: Books, reference: str, change: str) -> None:
    """An edit of a transaction that the ledger is not to allow."""
    unguarded(
        books, "blnk.transactions",
        f"UPDATE blnk.transactions SET {change} WHERE transaction_id = 'txn_{reference}'",
    )  # fmt: skip


@pytest.mark.parametrize(
    ("reference", "effective", "counted_for"),
    [
        ("salary", "2026-05-05", "2026-01-29"),  # behind every close
        ("euros", "2026-01-29 23:00", "2026-01-30"),  # into a date that was closed before
        ("euros", "2026-01-31 00:00", "2026-01-30"),  # onto the boundary that its date ends at
    ],
)
def test_an_effective_date_edited_across_a_boundary_moves_no_figure_and_is_named(
    healthy: Books, reference: str, effective: str, counted_for: str
) -> None:
    def answers() -> list[str]:
        return [
            healthy.balance(name, at=at, currency=currency)
            for name, currency in (("wallet", "USD"), ("purse", "EUR"))
            for at in ("2026-01-30", "2026-01-31")
        ]

    before = answers()
    edit(healthy, reference, f"effective_date = '{effective}'")
    for close in (None, "2026-01-31", "2026-02-01"):
        if close is not None:
            healthy.close_day(close)
        assert answers() == before
        for scope in BOTH:
            assert verify(healthy, scope).findings == []
        found = verify(healthy, "checksums").found
        assert {each.business_date.isoformat() for each in found if each.business_date} == {counted_for}
        assert {tuple(each.evidence["moved_transaction_ids"]) for each in found} == {(f"txn_{reference}",)}
        assert len(found) == 3  # the rows, and both balances


@pytest.mark.parametrize("effective", ["2026-01-29 23:59", "2025-12-31"])
def test_a_date_that_is_edited_within_its_business_date_is_named_by_date_alone(healthy: Books, effective: str) -> None:
    """The first close's date holds everything before it."""
    edit(healthy, "salary", f"effective_date = '{effective}'")
    (found,) = verify(healthy, "checksums").found
    assert (found.subject, found.evidence["moved_transaction_ids"]) == ("raw rows on 2026-01-29", [])


def test_a_date_that_is_edited_before_it_is_counted_is_no_difference(healthy: Books) -> None:
    edit(healthy, "future", "effective_date = '2026-01-31 12:00'")
    edit(healthy, "today", "effective_date = '2026-04-01 12:00'")
    for close in (None, "2026-01-31", "2026-02-01"):
        if close is not None:
            healthy.close_day(close)
        for scope in SCOPES:
            assert verify(healthy, scope).findings == []


def test_an_edited_parent_is_named(healthy: Books) -> None:
    edit(healthy, "part", "parent_transaction = NULL")
    found = verify(healthy, "checksums").found
    assert ("row_edited_or_removed", "raw rows on 2026-01-29") in causes(found)
    assert ("row_edited_or_removed", "bln_shop on 2026-01-29") in causes(found)


def test_an_altered_snapshot_is_named(healthy: Books) -> None:
    unguarded(
        healthy, "ledger_eod.balance_snapshots",
        "UPDATE ledger_eod.balance_snapshots SET credit_balance = credit_balance + 3 "
        "WHERE business_date = '2026-01-29' "
        "AND balance_key = (SELECT id FROM blnk.balances WHERE balance_id = 'bln_shop')",
    )  # fmt: skip
    found = verify(healthy, "checksums").found
    assert causes(found) == {
        ("row_edited_or_removed", "raw rows on 2026-01-29"), ("row_edited_or_removed", "bln_shop on 2026-01-29"),
    }  # fmt: skip
    assert findings_by_name(found)["bln_shop on 2026-01-29"].evidence["snapshot"] == "altered"


def test_an_altered_snapshot_of_the_newest_close_is_not_blamed_on_the_stored_row(healthy: Books) -> None:
    unguarded(
        healthy, "ledger_eod.balance_snapshots",
        "UPDATE ledger_eod.balance_snapshots SET debit_balance = debit_balance + 3 "
        "WHERE business_date = '2026-01-30' "
        "AND balance_key = (SELECT id FROM blnk.balances WHERE balance_id = 'bln_shop')",
    )  # fmt: skip
    for scope in BOTH:
        (found,) = verify(healthy, scope).found
        assert (found.cause, found.balance_id, found.evidence["stored_row_agrees_with"]) == (
            "row_edited_or_removed", "bln_shop", "raw rows",
        )  # fmt: skip


# Together, and night after night --------------------------------------------------------------------------------------


def test_a_discrepancy_is_one_row_night_after_night_until_it_is_gone(healthy: Books) -> None:
    healthy.execute("UPDATE blnk.balances SET credit_balance = credit_balance + 50 WHERE balance_id = 'bln_shop'")
    first = verify(healthy, "since-close")
    healthy.post("source  destination  amount\nwallet  shop  1.00 USD")  # stored and proven move on, the drift stays
    healthy.close_day("2026-01-31")
    second = verify(healthy, "since-close")
    third = verify(healthy, "from-genesis")
    assert [each.verification.opened_count for each in (first, second, third)] == [1, 0, 0]
    (kept,) = third.found
    assert (kept.first_verification_id, kept.last_verification_id) == (
        first.verification.verification_id, third.verification.verification_id,
    )  # fmt: skip
    healthy.execute("UPDATE blnk.balances SET credit_balance = credit_balance - 20 WHERE balance_id = 'bln_shop'")
    fourth = verify(healthy, "since-close")  # another difference is another fact
    assert (fourth.verification.opened_count, fourth.verification.closed_count) == (1, 1)
    healthy.execute(
        "UPDATE blnk.balances SET credit_balance = credit_balance - 30, balance = credit_balance - 30 - debit_balance "
        "WHERE balance_id = 'bln_shop'"
    )
    fifth = verify(healthy, "since-close")
    assert (fifth.findings, fifth.verification.closed_count) == ([], 1)
    with healthy.engine.connect() as connection:
        kept_for_good = list_discrepancies(connection, closed_too=True)
    assert [each.closed_verification_id for each in kept_for_good] == [
        fourth.verification.verification_id, fifth.verification.verification_id,
    ]  # fmt: skip


def test_what_another_scope_found_stays_open(healthy: Books) -> None:
    unguarded(healthy, "blnk.transactions", "DELETE FROM blnk.transactions WHERE transaction_id = 'txn_part'")
    for scope in ("from-genesis", "checksums"):
        verify(healthy, scope)
    before = healthy.rows("SELECT count(*) FROM ledger_eod.discrepancies WHERE closed_at IS NULL")
    verify(healthy, "since-close")
    assert healthy.rows("SELECT count(*) FROM ledger_eod.discrepancies WHERE closed_at IS NULL") == before == [(5,)]


def test_a_restricted_verification_is_about_those_balances_only(healthy: Books) -> None:
    healthy.execute("UPDATE blnk.balances SET credit_balance = credit_balance + 50 WHERE balance_id <> 'bln_wallet'")
    everything = {("tampered_stored_row", name) for name in ("bln_shop", "bln_purse", "bln_world_usd", "bln_world_eur")}
    assert causes(verify(healthy, "since-close").found) == everything
    healthy.execute("UPDATE blnk.balances SET credit_balance = credit_balance - 50 WHERE balance_id <> 'bln_wallet'")
    assert verify(healthy, "since-close", balance_ids=["bln_shop"]).verification.closed_count == 1
    assert verify(healthy, "from-genesis", currency="EUR").verification.closed_count == 2
    with pytest.raises(NothingSelected, match="there is no ledger none"):
        verify(healthy, "from-genesis", ledger_id="none")
    with pytest.raises(UnknownBalance, match="bln_nobody"):
        verify(healthy, "since-close", balance_ids=["bln_nobody"])


def open_subjects(books: Books) -> set[str]:
    with books.engine.connect() as connection:
        return {each.subject for each in list_discrepancies(connection)}


@pytest.mark.parametrize("scope", BOTH)
@pytest.mark.parametrize(
    ("restriction", "seen"),
    [
        ({"ledger_id": "ldg_savings"}, {"bln_saving", "bln_sparen"}),
        ({"currency": "EUR"}, {"bln_purse", "bln_world_eur", "bln_sparen"}),
        ({"ledger_id": "ldg_savings", "currency": "EUR"}, {"bln_sparen"}),
        ({"balance_ids": ["bln_wallet", "bln_saving"]}, {"bln_wallet", "bln_saving"}),
        ({"balance_ids": ["bln_wallet", "bln_sparen"], "currency": "EUR"}, {"bln_sparen"}),
    ],
)
def test_a_restricted_verification_closes_only_what_it_saw(
    healthy: Books, scope: Scope, restriction: dict[str, Any], seen: set[str]
) -> None:
    with healthy.engine.begin() as connection:
        create_ledger(connection, name="Savings", ledger_id="ldg_savings")
        for balance_id, currency in (("bln_saving", "USD"), ("bln_sparen", "EUR")):
            create_balance(connection, currency=currency, ledger_id="ldg_savings", balance_id=balance_id)
    healthy.post("""
        recorded          source  destination  amount     status    reference  parent
        2026-01-31 12:00  payer   payee        7.00 USD   INFLIGHT  small      -
        2026-01-31 12:01  payer   payee        9.00 USD   APPLIED   whole      small
    """)
    edit(healthy, "salary", "effective_date = '2026-01-30'")
    healthy.execute("UPDATE blnk.balances SET credit_balance = credit_balance + 50")
    for every in SCOPES:
        verify(healthy, every)
    found = open_subjects(healthy)
    assert {"txn_small", "raw rows on 2026-01-29", "bln_wallet on 2026-01-29", *seen} <= found
    healthy.execute("UPDATE blnk.balances SET credit_balance = credit_balance - 50")
    restricted = verify(healthy, scope, **restriction)
    assert restricted.found == []
    assert open_subjects(healthy) == found - seen
    assert (restricted.verification.closed_count, restricted.verification.balance_count) == (len(seen), len(seen))
    verify(healthy, scope)
    assert {each for each in open_subjects(healthy) if " on " not in each} == {"txn_small", "bln_payer", "bln_payee"}


def test_a_verification_that_looked_earlier_does_not_close_what_another_saw_meanwhile(healthy: Books) -> None:
    with healthy.engine.begin() as connection:
        first = open_verification(connection, scope="since-close")
        second = open_verification(connection, scope="from-genesis")
    assert judge_all(healthy, second) == []
    healthy.execute("UPDATE blnk.balances SET credit_balance = credit_balance + 50 WHERE balance_id = 'bln_shop'")
    found = judge_all(healthy, first)
    with healthy.engine.begin() as connection:
        assert record_findings(connection, first, found).opened_count == 1
    with healthy.engine.begin() as connection:
        assert close_unseen(connection, second) == 0
    assert open_subjects(healthy) == {"bln_shop"}
    assert verify(healthy, "from-genesis").verification.opened_count == 0


def test_what_stays_unexplained_is_one_discrepancy_in_both_scopes(healthy: Books) -> None:
    unguarded(healthy, "blnk.transactions", "DELETE FROM blnk.transactions WHERE transaction_id = 'txn_part'")
    healthy.execute("UPDATE blnk.balances SET credit_balance = credit_balance + 50 WHERE balance_id = 'bln_shop'")
    first = verify(healthy, "since-close")
    assert causes(first.found) == {("unexplained", "bln_shop"), ("row_edited_or_removed", "bln_shop")}
    second, third = verify(healthy, "from-genesis"), verify(healthy, "since-close")
    assert causes(second.found) == causes(first.found) | {("row_edited_or_removed", "bln_wallet")}
    assert [(each.verification.opened_count, each.verification.closed_count) for each in (second, third)] == [
        (1, 0), (0, 0),
    ]  # fmt: skip


def test_a_removed_snapshot_is_not_blamed_on_the_stored_row(healthy: Books) -> None:
    unguarded(
        healthy, "ledger_eod.balance_snapshots",
        "DELETE FROM ledger_eod.balance_snapshots WHERE business_date = '2026-01-30' "
        "AND balance_key = (SELECT id FROM blnk.balances WHERE balance_id = 'bln_shop')",
    )  # fmt: skip
    for scope in BOTH:
        (found,) = verify(healthy, scope).found
        assert (found.cause, found.balance_id, found.evidence["stored_row_agrees_with"]) == (
            "row_edited_or_removed", "bln_shop", "raw rows",
        )  # fmt: skip
    missing = findings_by_name(verify(healthy, "checksums").found)["bln_shop on 2026-01-30"]
    assert missing.evidence["snapshot"] == "missing"


def test_what_was_found_cannot_be_rewritten(healthy: Books) -> None:
    healthy.execute("UPDATE blnk.balances SET credit_balance = credit_balance + 50 WHERE balance_id = 'bln_shop'")
    verify(healthy, "since-close")
    for statement in (
        "UPDATE ledger_eod.discrepancies SET cause = 'nothing'",
        "UPDATE ledger_eod.discrepancies SET gross_difference = 0",
        "DELETE FROM ledger_eod.discrepancies",
        "DELETE FROM ledger_eod.verifications",
        "UPDATE ledger_eod.verifications SET finding_count = 0",
    ):
        with pytest.raises(Exception, match=r"evidence|does not change any more"):
            healthy.execute(statement)
