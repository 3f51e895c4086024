"""Reconstruction: what a balance is recalculated to, what may be corrected, and what a correction leaves behind."""

from __future__ import annotations

from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import pytest
from sqlalchemy.exc import DBAPIError

from ledger_db.errors import ApprovalRefused, NothingSelected, ReconstructionRefused, UnknownBalance
from ledger_db.history.balance_at import balance_at
from ledger_db.verification.opening_balances import declare_opening_balance
from tests.testing.books import Books, instant
from tests.testing.oracle import assert_proved
from tests.testing.reconstructions import (
    APPROVER,
    NO_LIMIT,
    PROPOSER,
    approve,
    begin,
    correct,
    log,
    propose,
    reconstruct,
    results,
    tamper,
    verdicts,
)
from tests.testing.verifications import verify

#: What no correction ever touches.
EVIDENCE = ("blnk.transactions", "ledger_eod.balance_snapshots", "ledger_eod.runs", "ledger_eod.run_totals")


def without_versions(books: Books) -> list[tuple[Any, ...]]:
    return books.rows("SELECT to_jsonb(balances) - 'version' FROM blnk.balances ORDER BY id")


def a_day(books: Books) -> None:
    """Three balances, posted and held, closed once, and a day since."""
    books.post("""
        recorded          source  destination  amount      status    reference  parent
        2026-01-31 09:00  @world  wallet       100.00 USD  APPLIED   in         -
        2026-01-31 10:00  wallet  shop          40.00 USD  INFLIGHT  hold       -
        2026-01-31 11:00  wallet  shop          15.00 USD  APPLIED   part       hold
        """)
    books.close_day("2026-01-31")
    books.post("""
        recorded          source  destination  amount     reference
        2026-02-01 09:00  @world  wallet       7.00 USD   next
        """)


def test_tampered_row_is_brought_back_in_all_its_parts(books: Books) -> None:
    a_day(books)
    before = without_versions(books)
    tamper(books, "wallet", "credit_balance", 500)
    tamper(books, "wallet", "balance", 500)
    tamper(books, "wallet", "inflight_debit_balance", 300)
    tamper(books, "wallet", "inflight_balance", -300)
    evidence = [books.rows(f"SELECT * FROM {table} ORDER BY 1, 2") for table in EVIDENCE]
    versions = books.rows("SELECT balance_id, version FROM blnk.balances")

    ((balance_id, result),) = reconstruct(books, "wallet").items()

    assert (balance_id, result.verdict, result.cause) == ("bln_wallet", "corrected", "tampered_stored_row")
    assert (books.balance("wallet"), books.inflight("wallet")) == ("92.00", "-25.00")
    assert without_versions(books) == before
    assert {balance_id for balance_id, _ in set(books.rows("SELECT balance_id, version FROM blnk.balances"))
            - set(versions)} == {"bln_wallet"}  # fmt: skip
    assert [books.rows(f"SELECT * FROM {table} ORDER BY 1, 2") for table in EVIDENCE] == evidence


def test_correction_leaves_its_evidence_in_the_log(books: Books) -> None:
    a_day(books)
    verify(books, "since-close")
    tamper(books, "wallet", "credit_balance", 500)
    tamper(books, "wallet", "balance", 500)
    verify(books, "since-close")
    ((version,),) = books.rows("SELECT version FROM blnk.balances WHERE balance_id = 'bln_wallet'")

    reconstruct(books, "wallet")

    (line,) = log(books)
    assert (line.balance_id, line.currency, line.cause) == ("bln_wallet", "USD", "tampered_stored_row")
    assert line.difference == -500
    assert [line.previous.balance, line.corrected.balance] == [9700, 9200]
    assert [line.previous.credit_balance, line.corrected.credit_balance] == [11200, 10700]
    assert line.previous.inflight_debit_balance == line.corrected.inflight_debit_balance == 2500
    assert (line.previous_version, line.corrected_version) == (version, version + 1)
    assert (line.proposed_by, line.approved_by, line.reason) == (PROPOSER, APPROVER, "the statement says so")
    assert line.base_run_id is not None
    assert line.drifted_since is not None
    assert line.drifted_since < line.corrected_at
    assert line.evidence["close"] == "2026-01-31"


@pytest.mark.parametrize("table", ["corrections", "approvals"])
def test_log_only_grows(books: Books, table: str) -> None:
    a_day(books)
    tamper(books, "wallet", "balance", 500)
    reconstruct(books, "wallet")
    for statement in (f"UPDATE ledger_eod.{table} SET figures_hash = ''", f"DELETE FROM ledger_eod.{table}"):
        with pytest.raises(Exception, match="is refused: it is evidence"):
            books.execute(statement)


def test_second_reconstruction_changes_nothing(books: Books) -> None:
    a_day(books)
    tamper(books, "wallet", "debit_balance", -100)
    reconstruct(books, "wallet")
    rows = books.stored_rows()

    proposal = propose(books, "wallet")

    assert verdicts(books, proposal) == {"bln_wallet": "agrees"}
    assert proposal.approval_reasons == []
    assert books.stored_rows() == rows
    assert len(log(books)) == 1


def test_discrepancy_is_closed_by_its_correction_and_the_next_verification_is_clean(books: Books) -> None:
    a_day(books)
    tamper(books, "wallet", "credit_balance", 1)
    assert verify(books, "since-close").verification.finding_count == 1

    reconstruct(books, selection="discrepancies")

    (closed,) = books.rows("SELECT closed_correction_id, closed_verification_id FROM ledger_eod.discrepancies")
    assert closed == (log(books)[0].correction_id, None)
    assert verify(books, "since-close").findings == []
    assert verify(books, "from-genesis").findings == []


def test_report_touches_nothing(books: Books) -> None:
    a_day(books)
    tamper(books, "wallet", "credit_balance", 500)
    rows = books.stored_rows()

    proposal = propose(books, "wallet", "shop", mode="report", reason="")

    assert verdicts(books, proposal) == {"bln_wallet": "correct", "bln_shop": "agrees"}
    wallet = results(books, proposal)[0]
    assert wallet.as_reference() == {
        "executed_at": f"{wallet.executed_at:%Y-%m-%d %H:%M:%S.%f+00}",
        "previous_debit": "1500",
        "previous_credit": "11200",
        "previous_balance": "9200",
        "recalculated_debit": "1500",
        "recalculated_credit": "10700",
        "recalculated_balance": "9200",
        "difference": "0",
    }
    assert books.stored_rows() == rows
    with pytest.raises(ReconstructionRefused, match="to report"):
        begin(books, proposal)


def test_correction_without_a_reason_is_refused(books: Books) -> None:
    a_day(books)
    with pytest.raises(ReconstructionRefused, match="needs a reason"):
        propose(books, "wallet", reason=" ")


def test_balance_that_does_not_exist_is_refused_before_anything_is_done(books: Books) -> None:
    a_day(books)
    with pytest.raises(UnknownBalance, match="no balance bln_nobody"):
        propose(books, "wallet", "nobody")
    with pytest.raises(ReconstructionRefused, match="no balance is given"):
        propose(books)


def test_history_says_that_the_stored_row_said_something_else(books: Books) -> None:
    a_day(books)
    verify(books, "since-close")
    tamper(books, "wallet", "credit_balance", 500)
    tamper(books, "wallet", "balance", 500)
    while_it_drifted = datetime.now(UTC)
    with books.engine.connect() as connection:
        before = balance_at(connection, "bln_wallet", while_it_drifted)
    reconstruct(books, "wallet")
    with books.engine.connect() as connection:
        after = balance_at(connection, "bln_wallet", while_it_drifted)
        earlier = balance_at(connection, "bln_wallet", instant("2026-02-01"))
        later = balance_at(connection, "bln_wallet", datetime.now(UTC))
    assert [before.balance, after.balance] == [9200, 9200], "it always told the postings"
    assert (before.correction_ids, after.correction_ids) == ((), (log(books)[0].correction_id,))
    assert (earlier.correction_ids, later.correction_ids) == ((), ())


# What may not be corrected --------------------------------------------------------------------------------------------


def test_missing_row_is_no_reason_to_rewrite_the_stored_row(books: Books) -> None:
    a_day(books)
    books.execute("ALTER TABLE blnk.transactions DISABLE TRIGGER USER")
    books.execute("DELETE FROM blnk.transactions WHERE transaction_id = 'txn_in'")
    books.execute("ALTER TABLE blnk.transactions ENABLE TRIGGER USER")
    tamper(books, "shop", "credit_balance", 500)
    rows = books.stored_rows()

    after = reconstruct(books, "wallet", "shop")

    assert (after["bln_wallet"].verdict, after["bln_wallet"].cause) == ("refused", "row_edited_or_removed")
    assert "no longer add up to the close of 2026-01-31" in after["bln_wallet"].remark
    assert after["bln_shop"].verdict == "corrected", "the others go on"
    assert [row for row in books.stored_rows() if row not in rows] == [books.stored_rows()[2]]


def test_orphan_commit_is_refused_with_its_reason(books: Books) -> None:
    books.post("""
        recorded          source  destination  amount      status   reference  parent
        2026-01-31 09:00  @world  wallet       100.00 USD  APPLIED  in         -
        2026-01-31 09:30  wallet  shop          30.00 USD  QUEUED   queued     -
        """)
    books.insert(
        source="bln_wallet", destination="bln_shop", precise_amount=3000, amount=30, currency="USD",
        parent_transaction="txn_queued", created_at=instant("2026-01-31 10:00").replace(tzinfo=None),
    )  # fmt: skip
    tamper(books, "wallet", "inflight_debit_balance", -3000)

    (result,) = reconstruct(books, "wallet").values()

    assert (result.verdict, result.cause) == ("refused", "orphan_commit")
    assert "investigate" in result.remark


def test_unprovable_history_is_refused_until_an_opening_balance_is_declared(books: Books) -> None:
    a_day(books)
    books.insert(
        source="bln_world_usd", destination="bln_wallet", amount=Decimal("1.005"), precise_amount=None, currency="USD",
        stored_too=False, created_at=instant("2026-02-01 10:00").replace(tzinfo=None),
    )  # fmt: skip
    tamper(books, "wallet", "credit_balance", 101)
    tamper(books, "wallet", "balance", 101)
    assert reconstruct(books, "wallet")["bln_wallet"].verdict == "refused"
    with books.engine.begin() as connection:
        declare_opening_balance(connection, "bln_wallet", declared_by="Ada", reason="rounded by the bank")

    assert reconstruct(books, "wallet")["bln_wallet"].verdict == "agrees"
    tamper(books, "wallet", "credit_balance", 7)
    assert reconstruct(books, "wallet")["bln_wallet"].verdict == "corrected"
    assert books.balance("wallet") == "93.01"


def test_row_near_the_limit_of_a_notification_is_reported_and_the_others_go_on(books: Books) -> None:
    a_day(books)
    books.execute(
        "UPDATE blnk.balances SET meta_data = jsonb_build_object('note', repeat('x', 7800)) "
        "WHERE balance_id = 'bln_wallet'"
    )
    tamper(books, "wallet")
    tamper(books, "shop")
    rows = books.stored_rows()

    after = reconstruct(books, "wallet", "shop")

    assert (after["bln_wallet"].verdict, after["bln_shop"].verdict) == ("refused", "corrected")
    assert "make its meta_data smaller first" in after["bln_wallet"].remark
    assert books.stored_rows()[1] == rows[1]


# Requested as in the reference system ---------------------------------------------------------------------------------

EIGHT = {
    "executed_at",
    "difference",
    "previous_balance",
    "previous_credit",
    "previous_debit",
    "recalculated_balance",
    "recalculated_credit",
    "recalculated_debit",
}


def test_requested_reconstruction_is_answered_where_it_was_asked(books: Books) -> None:
    a_day(books)
    tamper(books, "wallet", "credit_balance", 500)
    tamper(books, "wallet", "balance", 500)
    books.execute(
        """UPDATE blnk.balances SET meta_data = '{"note": "kept", "BLNK_RUN_RECONCILIATION": "SOURCE"}'
        WHERE balance_id IN ('bln_wallet', 'bln_shop')"""
    )

    reconstruct(books, selection="requested")

    for name, difference in (("wallet", "-500"), ("shop", "0")):
        ((meta_data,),) = books.rows("SELECT meta_data FROM blnk.balances WHERE balance_id = :id", id=books.id_of(name))
        answer = meta_data.pop("BLNK_RECONCILIATION_RESULT")
        assert meta_data == {"note": "kept"}, "the flag is gone, the rest stays"
        assert set(answer) == EIGHT
        assert all(isinstance(value, str) for value in answer.values())
        assert answer["difference"] == difference
    assert len(log(books)) == 1, "a row that was right has no correction"
    with pytest.raises(NothingSelected, match="no balance requests a reconstruction"):
        propose(books, selection="requested")


def test_application_that_answers_requests_itself_is_left_to_do_so(books: Books) -> None:
    a_day(books)
    books.execute("CREATE FUNCTION blnk.reconcile() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RETURN NEW; END $$")
    books.execute(
        "CREATE TRIGGER reconcile_balance_trigger BEFORE UPDATE ON blnk.balances "
        "FOR EACH ROW EXECUTE FUNCTION blnk.reconcile()"
    )
    books.execute(
        """UPDATE blnk.balances SET meta_data = '{"BLNK_RUN_RECONCILIATION": "SOURCE"}' WHERE balance_id = 'bln_shop'"""
    )
    with pytest.raises(ReconstructionRefused, match="answers BLNK_RUN_RECONCILIATION itself"):
        propose(books, selection="requested")


# Approval -------------------------------------------------------------------------------------------------------------


def test_what_needs_an_approval(books: Books) -> None:
    a_day(books)
    tamper(books, "wallet", "credit_balance", 500)
    tamper(books, "shop", "credit_balance", 700)

    def reasons(**limits: object) -> list[str]:
        return propose(books, "wallet", "shop", **limits).approval_reasons or []  # type: ignore[arg-type]

    assert reasons() == ["1200 USD in all, the limit is 0 (minor units)"]
    assert reasons(limits={"USD": Decimal(1199)}) == ["1200 USD in all, the limit is 1199 (minor units)"]
    assert reasons(limits={"USD": Decimal(1200)}) == []
    assert reasons(limits={"USD": NO_LIMIT}, balance_limit=1) == ["2 balances, the limit is 1"]


def test_unexplained_drift_always_needs_an_approval(books: Books) -> None:
    books.post("""
        recorded          source  destination  amount
        2026-01-31 09:00  @world  wallet       100.00 USD
        """)
    tamper(books, "wallet", "credit_balance", 5)  # without a close there is no third witness
    proposal = propose(books, "wallet", limits={"USD": NO_LIMIT})
    assert proposal.approval_reasons == ["1 without a known cause"]


def test_below_the_limits_nobody_is_asked(books: Books) -> None:
    a_day(books)
    tamper(books, "wallet", "credit_balance", 500)
    proposal = propose(books, "wallet", limits={"USD": Decimal(500)})
    with books.engine.begin() as connection:
        from ledger_db.correction.proposals import begin_applying

        begin_applying(connection, proposal.reconstruction_id, None)
    assert correct(books, proposal, "wallet") == "corrected"
    (line,) = log(books)
    assert (line.approved_by, line.approval_id) == (None, None)


@pytest.mark.parametrize("by", [PROPOSER, " aDa ", ""])
def test_proposer_does_not_approve(books: Books, by: str) -> None:
    a_day(books)
    tamper(books, "wallet")
    proposal = propose(books, "wallet")
    refused = approve(books, proposal, by=by)
    assert refused.decision == "refused"
    from ledger_db.correction.proposals import find_approval

    with books.engine.connect() as connection:
        assert find_approval(connection, proposal, within_hours=1) is None


def test_approval_is_good_once(books: Books) -> None:
    from ledger_db.correction.proposals import begin_applying

    a_day(books)
    tamper(books, "wallet")
    proposal = propose(books, "wallet")
    approval = approve(books, proposal)
    again = propose(books, "wallet")
    assert again.figures_hash == proposal.figures_hash
    with books.engine.begin() as connection:
        begin_applying(connection, proposal.reconstruction_id, approval.approval_id)
    with pytest.raises(ApprovalRefused, match="used before"), books.engine.begin() as connection:
        begin_applying(connection, again.reconstruction_id, approval.approval_id)
    with pytest.raises(ReconstructionRefused, match="not being applied"):
        correct(books, again, "wallet")


def test_hash_is_about_the_difference_and_not_about_the_traffic(books: Books) -> None:
    a_day(books)
    tamper(books, "wallet")
    proposal = propose(books, "wallet")
    books.post("""
        recorded          source  destination  amount
        2026-02-01 12:00  @world  wallet       3.00 USD
        """)
    assert propose(books, "wallet").figures_hash == proposal.figures_hash
    begin(books, proposal)
    assert correct(books, proposal, "wallet") == "corrected"
    assert books.balance("wallet") == "95.00"


def test_figures_that_changed_since_they_were_approved_are_stale(books: Books) -> None:
    a_day(books)
    tamper(books, "wallet", by=500)
    proposal = propose(books, "wallet")
    begin(books, proposal)
    tamper(books, "wallet", by=1)
    rows = books.stored_rows()
    assert correct(books, proposal, "wallet") == "stale"
    assert correct(books, proposal, "wallet") == "stale"
    assert books.stored_rows() == rows
    assert log(books) == []


# Odd rows -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("amount", ["NaN", "Infinity", "-Infinity"])
def test_stored_amount_that_is_no_number_is_found_and_corrected(books: Books, amount: str) -> None:
    a_day(books)
    tamper(books, "shop", "credit_balance", 500)
    books.execute(
        f"UPDATE blnk.balances SET debit_balance = '{amount}', balance = 'NaN' WHERE balance_id = 'bln_wallet'"
    )
    for scope in ("since-close", "from-genesis"):
        assert {(each.balance_id, each.cause) for each in verify(books, scope).found} == {
            ("bln_wallet", "tampered_stored_row"), ("bln_shop", "tampered_stored_row"),
        }  # fmt: skip
    proposal = propose(books, "wallet", "shop", limits={"USD": NO_LIMIT})
    assert any("USD in all" in reason for reason in proposal.approval_reasons or []), "above any limit"
    begin(books, proposal)
    assert {correct(books, proposal, name) for name in ("wallet", "shop")} == {"corrected"}
    assert (books.balance("wallet"), books.balance("shop")) == ("92.00", "15.00")
    assert verify(books, "from-genesis").findings == []


@pytest.mark.parametrize("meta_data", [None, "null", "[]", '["BLNK_RUN_RECONCILIATION"]', '"SOURCE"', "7", "{}"])
def test_metadata_of_any_kind_stays_as_it_is(books: Books, meta_data: str | None) -> None:
    a_day(books)
    books.execute(
        "UPDATE blnk.balances SET meta_data = CAST(:meta AS jsonb) WHERE balance_id = 'bln_wallet'", meta=meta_data
    )
    tamper(books, "wallet")
    assert propose(books, "wallet", selection="given").selection == "given"
    assert reconstruct(books, "wallet")["bln_wallet"].verdict == "corrected"
    assert books.rows("SELECT meta_data::text FROM blnk.balances WHERE balance_id = 'bln_wallet'") == [(meta_data,)]


def test_amounts_beyond_64_bits_are_corrected_exactly(books: Books) -> None:
    books.post(f"""
        recorded          source  destination  amount
        2026-01-31 09:00  @world  wallet       {2**80}.01 USD
        2026-01-31 09:00  @world  wallet       {2**80}.02 USD
        """)
    books.close_day("2026-01-31")
    tamper(books, "wallet", "credit_balance", 2**90 + 1)
    tamper(books, "wallet", "inflight_debit_balance", -(2**90) - 1)
    (result,) = reconstruct(books, "wallet").values()
    assert (result.verdict, int(result.gross_difference)) == ("corrected", 2 * (2**90 + 1))
    assert (books.balance("wallet"), books.inflight("wallet")) == (f"{2**81}.03", "0.00")
    assert log(books)[0].previous.credit_balance == 2**81 * 100 + 3 + 2**90 + 1


def test_balance_column_counts_towards_the_limits_where_it_is_worse_off_than_its_parts(books: Books) -> None:
    a_day(books)
    tamper(books, "wallet", "credit_balance", 1)
    tamper(books, "wallet", "balance", 10**31 + 1)
    proposal = propose(books, "wallet", limits={"USD": Decimal(10)})
    assert proposal.approval_reasons == [f"{10**31 + 1} USD in all, the limit is 10 (minor units)"]
    assert reconstruct(books, "wallet")["bln_wallet"].verdict == "corrected"
    tamper(books, "wallet", "credit_balance", 10**31 + 1)
    assert [each.gross_difference for each in verify(books, "since-close").found] == [10**31 + 1]


def test_error_of_another_trigger_is_not_taken_for_a_row_that_is_too_long(books: Books) -> None:
    a_day(books)
    tamper(books, "wallet")
    books.execute(
        "CREATE FUNCTION public.no() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION 'not today' "
        "USING ERRCODE = 'invalid_parameter_value'; END $$"
    )
    books.execute("CREATE TRIGGER no BEFORE UPDATE ON blnk.balances FOR EACH ROW EXECUTE FUNCTION public.no()")
    with pytest.raises(DBAPIError, match="not today"):
        reconstruct(books, "wallet")
    assert log(books) == []


def test_negative_hold_is_not_written(books: Books) -> None:
    """The postings settle more than was held: whatever else is wrong with the row, somebody must look first."""
    books.post("""
        recorded          source  destination  amount     status    reference  parent
        2026-01-29 09:00  wallet  shop          9.00 USD  INFLIGHT  hold       -
        2026-01-29 09:01  wallet  shop         12.00 USD  APPLIED   whole      hold
        """)
    books.execute("UPDATE blnk.balances SET inflight_debit_balance = 0, inflight_balance = 0 WHERE id = 2")
    books.close_day("2026-01-31")
    tamper(books, "wallet", "debit_balance", 7)
    rows = books.stored_rows()
    (result,) = reconstruct(books, "wallet").values()
    assert (result.verdict, books.stored_rows()) == ("refused", rows)
    assert "negative hold" in result.remark


def test_declaration_from_before_a_restore_covers_what_came_along_and_nothing_since(books: Books) -> None:
    """Transaction ids say nothing in another cluster: which rows were there when the ledger came is known by key."""
    a_day(books)
    tamper(books, "wallet", "credit_balance", 50)
    tamper(books, "wallet", "balance", 50)
    record_unprovable(books, "before")
    with books.engine.begin() as connection:
        declare_opening_balance(connection, "bln_wallet", declared_by="Ada", reason="migrated")
    move_to_another_cluster(books)
    for close in (None, "2026-02-01"):
        if close is not None:
            books.close_day(close)
        assert reconstruct(books, "wallet")["bln_wallet"].verdict == "agrees"
        assert verify(books, "since-close").findings == verify(books, "from-genesis").findings == []
        tamper(books, "wallet", "credit_balance", 3)
        assert {each.cause for each in verify(books, "since-close").found} == {"tampered_stored_row"}
        assert reconstruct(books, "wallet")["bln_wallet"].verdict == "corrected"

    record_unprovable(books, "since")
    tamper(books, "wallet", "credit_balance", 101)  # what the application added for it
    assert {each.cause for each in verify(books, "since-close").found} == {"wrong_scale"}
    (result,) = reconstruct(books, "wallet").values()
    assert result.verdict == "refused"
    assert "1 transactions have no exact amount" in result.remark


def record_unprovable(books: Books, reference: str) -> None:
    """A row with more decimals than its precision allows."""
    books.insert(
        source="bln_world_usd", destination="bln_wallet", amount=Decimal("1.005"), precise_amount=None, currency="USD",
        stored_too=False, created_at=instant("2026-02-01 10:00").replace(tzinfo=None), reference=reference,
    )  # fmt: skip


def move_to_another_cluster(books: Books) -> None:
    """As if the ledger had been dumped in another cluster and restored here."""
    for table in ("opening_balances", "clusters"):
        books.execute(f"ALTER TABLE ledger_eod.{table} DISABLE TRIGGER USER")
        books.execute(f"UPDATE ledger_eod.{table} SET system_identifier = '1'")
    books.execute("ALTER TABLE blnk.transactions DISABLE TRIGGER USER")
    books.execute("UPDATE blnk.transactions SET recorded_xid = CAST('900000000' AS xid8)")


# Near the limit of a notification, with the application's own trigger -------------------------------------------------


def notify(books: Books) -> None:
    """The reference's trigger."""
    books.execute(
        "CREATE FUNCTION blnk.notify_data_change() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN PERFORM pg_notify("
        "'data_change', json_build_object('table', TG_TABLE_NAME, 'data', row_to_json(NEW))::text); RETURN NEW; END $$"
    )
    books.execute(
        "CREATE TRIGGER data_change AFTER INSERT OR UPDATE ON blnk.balances "
        "FOR EACH ROW EXECUTE FUNCTION blnk.notify_data_change()"
    )


def notified_bytes(books: Books, name: str) -> int:
    ((size,),) = books.rows(
        "SELECT octet_length(json_build_object('table', 'balances', 'data', row_to_json(balances))::text) "
        "FROM blnk.balances WHERE balance_id = :id",
        id=books.id_of(name),
    )
    return int(size)


def fill(books: Books, name: str, size: int, *, flag: bool = False) -> None:
    """Give a row metadata so that its notification has exactly so many bytes."""
    meta = '{"BLNK_RUN_RECONCILIATION": "SOURCE"}' if flag else "{}"
    sql = (
        "UPDATE blnk.balances SET meta_data = CAST(:meta AS jsonb) || jsonb_build_object('note', repeat('x', :n)) "
        "WHERE balance_id = :id"
    )
    books.execute(sql, meta=meta, n=0, id=books.id_of(name))
    books.execute(sql, meta=meta, n=size - notified_bytes(books, name), id=books.id_of(name))
    assert notified_bytes(books, name) == size


@pytest.mark.parametrize("size", [7998, 7999])
def test_longest_row_that_the_application_could_write_is_corrected(books: Books, size: int) -> None:
    a_day(books)
    notify(books)
    tamper(books, "wallet", by=500)  # the digits stay as many
    fill(books, "wallet", size)
    assert reconstruct(books, "wallet")["bln_wallet"].verdict == "corrected"


def test_answer_that_does_not_fit_is_said_and_the_others_go_on(books: Books) -> None:
    """The row fits a notification, and would not with the answer: drifted or not, it stays as it was."""
    a_day(books)
    notify(books)
    tamper(books, "wallet", by=500)
    fill(books, "wallet", 7900, flag=True)
    fill(books, "shop", 7900, flag=True)
    fill(books, "@world", 7700, flag=True)
    rows = books.stored_rows()

    after = reconstruct(books, selection="requested")

    assert (after["bln_wallet"].verdict, after["bln_shop"].verdict) == ("refused", "refused")
    for name in ("wallet", "shop"):
        assert "make its meta_data smaller first" in after[f"bln_{name}"].remark
    assert books.rows("SELECT count(*) FROM blnk.balances WHERE meta_data ? 'BLNK_RECONCILIATION_RESULT'") == [(1,)]
    assert [row for row in books.stored_rows() if row not in rows] == [books.stored_rows()[0]]
    assert 7900 < notified_bytes(books, "@world") < 8000


# Restoring trust ------------------------------------------------------------------------------------------------------


def marked(books: Books, name: str = "wallet") -> list[tuple[str, int | None]]:
    """The closes of a balance and the correction that each is marked with."""
    return [
        (str(day), correction_id)
        for day, correction_id in books.rows(
            "SELECT business_date, correction_id FROM ledger_eod.daily_balances WHERE balance_id = :id ORDER BY 1",
            id=books.id_of(name),
        )
    ]


def test_closes_taken_while_the_row_drifted_are_marked_and_no_others(books: Books) -> None:
    a_day(books)  # closes 31 January
    verify(books, "since-close")
    tamper(books, "wallet", by=500)
    books.close_day("2026-02-01")
    verify(books, "since-close")
    books.close_day("2026-02-02")
    tamper(books, "wallet", by=1)  # another difference: the discrepancy is another one
    verify(books, "since-close")
    books.close_day("2026-02-03")
    reconstruct(books, "wallet")
    run = books.close_day("2026-02-04")
    assert run.certified
    assert_proved(books, run)
    expected: list[tuple[str, int | None]] = [
        ("2026-01-31", None), ("2026-02-01", 1), ("2026-02-02", 1), ("2026-02-03", 1), ("2026-02-04", None),
    ]  # fmt: skip
    assert marked(books) == expected
    assert {correction_id for _, correction_id in marked(books, "shop")} == {None}

    verify(books, "since-close")
    tamper(books, "wallet", by=7)  # again, and corrected before anybody verified
    books.close_day("2026-02-05")
    reconstruct(books, "wallet")
    tamper(books, "wallet", by=8)  # and once more: what the correction before it brought back was right then
    reconstruct(books, "wallet")
    assert_proved(books, books.close_day("2026-02-06"))
    assert marked(books) == [*expected, ("2026-02-05", 2), ("2026-02-06", None)]
    assert verify(books, "since-close").findings == verify(books, "from-genesis").findings == []
