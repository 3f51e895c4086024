"""A new chain of closes: counted from the first posting, compared with the one before, approved by somebody else."""

from __future__ import annotations

from datetime import date

import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError

from ledger_db.close.driver import count_rows
from ledger_db.close.new_chain import (
    NewChain,
    approve_new_chain,
    differences_of,
    find_new_chain,
    list_new_chains,
    open_new_chain,
)
from ledger_db.close.opening import abandon_run, dates_to_close
from ledger_db.close.runs import Run, find_run
from ledger_db.core.calendar import BusinessCalendar
from ledger_db.errors import (
    ChainDiffers,
    NewChainRefused,
    NotApproved,
    NotCertified,
    OutOfOrder,
    PeriodNotEnded,
    TableMadeAnew,
    UnknowableAt,
    UnknownProposal,
)
from ledger_db.verification import driver
from ledger_db.verification.closed_dates import RowsLeftOut
from ledger_db.verification.sweeps import SCOPES
from tests.testing.books import Books, Ledger, instant, unguarded
from tests.testing.oracle import (
    Cut,
    Figures,
    add_up,
    assert_proved,
    difference_by_currency,
    interim,
    open_interim_at,
    read_rows,
    snapshots_of,
    without_zeros,
)
from tests.testing.remade import make_anew
from tests.testing.verifications import verify

REASON = "the table was copied in again"


@pytest.fixture
def closed(ledger: Ledger) -> Books:
    """Two closed days: rows counted on both, a hold that is partly released, one row pending."""
    books = Books(ledger)
    books.post("""
        recorded          effective         source  destination  amount     status    parent  reference
        2026-01-29 09:00  -                 @world  wallet       10.00 USD  APPLIED   -       first
        2026-01-29 09:01  -                 wallet  shop          4.00 USD  INFLIGHT  -       hold
        2026-01-30 09:00  -                 @world  wallet        2.50 USD  APPLIED   -       second
        2026-01-30 09:01  -                 wallet  shop          1.00 USD  APPLIED   hold    release
        2026-01-30 09:03  2026-02-03 09:00  wallet  shop          0.07 USD  APPLIED   -       later
    """)
    books.close_day("2026-01-29")
    books.close_day("2026-01-30")
    return books


def propose(books: Books, *, reason: str = REASON, by: str = "ada", now: str = "2026-02-01 00:05") -> Run:
    """Open a new chain's first close."""
    with books.engine.begin() as connection:
        return open_new_chain(connection, reason=reason, proposed_by=by, calendar=BusinessCalendar(), now=instant(now))


def approve(books: Books, run: Run, *, by: str = "grace") -> str:
    """Decide about what a run proposes; returns what became of the decision."""
    with books.engine.begin() as connection:
        chain = find_new_chain(connection, run.run_id)
        assert chain is not None
        _, approval = approve_new_chain(connection, str(chain.figures_hash), decided_by=by, channel="test")
    return approval.decision


def chain_of(books: Books, run: Run) -> NewChain:
    with books.engine.connect() as connection:
        chain = find_new_chain(connection, run.run_id)
    assert chain is not None
    return chain


def compared(books: Books, run: Run) -> dict[str, tuple[tuple[int, int], dict[str, int]]]:
    """By balance: posted and inflight balance now minus then, and the transactions that explain some of it."""
    with books.engine.connect() as connection:
        found = differences_of(connection, run.run_id)
    result = {}
    for each in found:
        difference = each.present.minus(each.previous)
        items = {item.transaction_id: int(item.parts.credit - item.parts.debit) for item in each.transactions}
        posted, held = difference.credit - difference.debit, difference.inflight_credit - difference.inflight_debit
        result[each.balance_id] = ((int(posted), int(held)), items)
    return result


def redate(books: Books, reference: str, day: str) -> None:
    """Another effective date for a posted row, as somebody with the right to switch triggers off gives it."""
    unguarded(
        books, "blnk.transactions",
        f"UPDATE blnk.transactions SET effective_date = '{day}' WHERE reference = '{reference}'",
    )  # fmt: skip


def waiting(books: Books, run: Run) -> None:
    with pytest.raises(NotApproved):
        books.finish(run)


def begin(books: Books) -> Run:
    """A whole new chain, approved: its certified first close."""
    run = propose(books)
    waiting(books, run)
    assert approve(books, run) == "approved"
    return books.finish(run)


# Where no close goes on ----------------------------------------------------------------------------------------------


def test_a_table_made_anew_goes_on_in_a_new_chain_once_somebody_else_approves(closed: Books) -> None:
    make_anew(closed, order="id DESC")
    with pytest.raises(TableMadeAnew):
        closed.close_day("2026-01-31")
    run = propose(closed)
    waiting(closed, run)
    waiting(closed, run)  # also the night that comes to it
    assert approve(closed, run, by=" ADA ") == "refused"
    waiting(closed, run)
    assert approve(closed, run) == "approved"
    certified = closed.finish(run)
    assert certified.certified
    assert certified.base_run_id is None
    assert_proved(closed, certified)
    chain = chain_of(closed, run)
    assert (chain.has_same_rows, chain.gone_count, chain.changed_dates) == (False, 0, [])
    assert compared(closed, run) == {}
    for day in ("2026-02-01", "2026-02-02", "2026-02-03"):
        following = closed.close_day(day)
        assert following.genesis_run_id == run.run_id
        assert_proved(closed, following)
    for at in ("2026-01-30", "2026-01-31", "2026-02-01", "2026-02-04"):
        assert closed.balance("wallet", at=at) == closed.balance("wallet", at=at, from_source=True)
    assert closed.balance("wallet", at="2026-02-04") == "11.43"


def test_of_a_replaced_table_a_close_answers_for_its_own_instant_only(closed: Books) -> None:
    make_anew(closed, order="id DESC", keys_start_at="min(id)")
    begin(closed)
    assert closed.balance("wallet", at="2026-01-31", known_at="2026-01-30") == "11.50"
    with pytest.raises(UnknowableAt, match="have other keys since the ledger's table was made anew"):
        closed.balance("wallet", at="2026-01-30", known_at="2026-01-30")
    assert closed.balance("wallet", at="2026-02-01", known_at="2026-01-31") == "11.50"
    assert closed.balance("wallet", at="2026-01-30", known_at="2026-01-31") == "10.00"


def test_a_row_lost_in_the_copy_is_a_difference_without_transactions(closed: Books) -> None:
    make_anew(closed, order="id")
    unguarded(closed, "blnk.transactions", "DELETE FROM blnk.transactions WHERE reference = 'second'")
    run = propose(closed)
    waiting(closed, run)
    assert compared(closed, run) == {"bln_wallet": ((-250, 0), {}), "bln_world_usd": ((250, 0), {})}
    chain = chain_of(closed, run)
    assert (chain.has_same_rows, chain.gone_count, chain.changed_dates) == (False, 1, [date(2026, 1, 30)])


def test_closes_that_the_upgrade_could_not_explain_go_on_in_a_new_chain(closed: Books) -> None:
    newest = closed.close_day("2026-01-31")
    closed.execute(
        "INSERT INTO ledger_eod.chain_differences VALUES (:genesis, 1, 5, 0, 0, 0)", genesis=newest.genesis_run_id
    )
    with pytest.raises(ChainDiffers):
        closed.close_day("2026-02-01")
    run = propose(closed, now="2026-02-02 00:05")
    assert run.business_date == date(2026, 2, 1)
    waiting(closed, run)
    assert approve(closed, run) == "approved"
    assert_proved(closed, closed.finish(run))
    assert_proved(closed, closed.close_day("2026-02-02"))


# What it differs by --------------------------------------------------------------------------------------------------


def test_rows_repaired_by_hand_stop_being_an_alarm_once_approved(closed: Books) -> None:
    unguarded(
        closed, "blnk.transactions",
        "UPDATE blnk.transactions SET amount = 3.5, precise_amount = 350 WHERE reference = 'second'",
    )  # fmt: skip
    assert {(each.cause, each.business_date) for each in verify(closed, "checksums").found} == {
        ("row_edited_or_removed", date(2026, 1, 30))
    }
    run = propose(closed)
    waiting(closed, run)
    assert compared(closed, run) == {"bln_wallet": ((100, 0), {}), "bln_world_usd": ((-100, 0), {})}
    chain = chain_of(closed, run)
    assert (chain.gone_count, chain.changed_dates) == (0, [date(2026, 1, 30)])
    assert verify(closed, "checksums").found  # until it is approved
    assert approve(closed, run) == "approved"
    closed.finish(run)
    result = driver.verify(closed.engine, scope="checksums")
    assert (result.findings, result.compared.rows_left_out) == ([], {RowsLeftOut.ended_chain: 2})
    assert closed.balance("wallet", at="2026-01-31") == "12.50"
    assert closed.balance("wallet", at="2026-01-31", known_at="2026-01-30") == "11.50"


def test_the_snapshots_of_an_ended_chain_stay_checked(closed: Books) -> None:
    begin(closed)
    unguarded(
        closed, "ledger_eod.balance_snapshots",
        "UPDATE ledger_eod.balance_snapshots SET credit_balance = credit_balance + 1 "
        "WHERE business_date = '2026-01-30' AND balance_key = "
        "(SELECT id FROM blnk.balances WHERE balance_id = 'bln_shop')",
    )  # fmt: skip
    assert verify(closed, "checksums").found


def test_transactions_that_only_one_chain_counts_are_itemised(closed: Books) -> None:
    closed.post("""
        recorded          effective         source  destination  amount     reference
        2026-02-01 00:01  2026-01-20 09:00  @world  shop          5.00 USD  came_late
    """)
    redate(closed, "second", "2026-02-05")
    redate(closed, "later", "2026-01-15")
    run = propose(closed)
    waiting(closed, run)
    assert compared(closed, run) == {
        "bln_world_usd": ((250 - 500, 0), {"txn_second": 250, "txn_came_late": -500}),
        "bln_shop": ((500 + 7, 0), {"txn_came_late": 500, "txn_later": 7}),
        "bln_wallet": ((-250 - 7, 0), {"txn_second": -250, "txn_later": -7}),
    }
    assert approve(closed, run) == "approved"
    assert_proved(closed, closed.finish(run))


def test_a_hold_that_is_released_later_now_is_itemised(closed: Books) -> None:
    redate(closed, "release", "2026-02-05")
    run = propose(closed)
    waiting(closed, run)
    found = compared(closed, run)
    assert found["bln_shop"] == ((-100, 100), {"txn_release": -100})
    assert found["bln_wallet"] == ((100, -100), {"txn_release": 100})


def test_rows_that_are_gone_are_counted(closed: Books) -> None:
    unguarded(closed, "blnk.transactions", "DELETE FROM blnk.transactions WHERE reference = 'second'")
    run = propose(closed)
    waiting(closed, run)
    chain = chain_of(closed, run)
    assert (chain.has_same_rows, chain.gone_count, chain.changed_dates) == (True, 1, [date(2026, 1, 30)])
    assert compared(closed, run)["bln_wallet"] == ((-250, 0), {})


def test_books_without_a_change_differ_by_nothing_and_need_the_approval_all_the_same(closed: Books) -> None:
    run = propose(closed)
    waiting(closed, run)
    assert compared(closed, run) == {}
    assert chain_of(closed, run).changed_dates == []
    assert approve(closed, run) == "approved"
    assert closed.finish(run).certified


def test_differences_that_cancel_out_are_shown(closed: Books) -> None:
    """One row edited up, one of as much recorded late, the other way round: the balances are as they were."""
    unguarded(
        closed, "blnk.transactions",
        "UPDATE blnk.transactions SET amount = 3.5, precise_amount = 350 WHERE reference = 'second'",
    )  # fmt: skip
    closed.post("""
        recorded          effective         source  destination  amount     reference
        2026-02-01 00:01  2026-01-30 09:00  wallet  @world       1.00 USD   came_late
    """)
    run = propose(closed)
    waiting(closed, run)
    assert compared(closed, run) == {
        "bln_world_usd": ((0, 0), {"txn_came_late": 100}),
        "bln_wallet": ((0, 0), {"txn_came_late": -100}),
    }
    with closed.engine.connect() as connection:
        rests = {each.balance_id: each.rest for each in differences_of(connection, run.run_id)}
    assert {name: int(rest.credit - rest.debit) for name, rest in rests.items()} == {
        "bln_world_usd": -100, "bln_wallet": 100,
    }  # fmt: skip


def test_a_row_that_moved_between_dates_in_the_copy_is_told_by_its_dates(closed: Books) -> None:
    make_anew(closed, order="id DESC")
    redate(closed, "second", "2026-01-29 12:00")
    run = propose(closed)
    waiting(closed, run)
    assert compared(closed, run) == {}
    assert chain_of(closed, run).changed_dates == [date(2026, 1, 29), date(2026, 1, 30)]


def test_rows_deleted_for_good_are_no_table_made_anew(closed: Books) -> None:
    closed.execute("ALTER TABLE blnk.transactions DISABLE TRIGGER USER")
    closed.execute("DELETE FROM blnk.transactions WHERE reference IN ('first', 'second', 'release')")
    closed.execute("ALTER TABLE blnk.transactions ENABLE TRIGGER USER")
    with pytest.raises(TableMadeAnew):
        closed.close_day("2026-01-31")
    run = propose(closed)
    waiting(closed, run)
    chain = chain_of(closed, run)
    assert (chain.has_same_rows, chain.gone_count) == (True, 3)


def test_a_table_replaced_after_the_proposal_is_seen_when_it_is_compared(closed: Books) -> None:
    run = propose(closed)
    with closed.engine.begin() as connection:
        connection.exec_driver_sql("SET LOCAL session_replication_role = replica")
        connection.exec_driver_sql("UPDATE blnk.transactions SET id = id + 100")
        connection.exec_driver_sql("UPDATE blnk.transactions SET id = 106 - id + 1 - 1 WHERE id > 100")
    with pytest.raises((NotApproved, NotCertified)):
        closed.finish(run)
    assert closed.rows("SELECT has_same_rows FROM ledger_eod.new_chains") in ([(False,)], [(None,)])


def test_a_proposal_changes_no_verification_and_no_correction(closed: Books) -> None:
    closed.execute("UPDATE blnk.balances SET credit_balance = credit_balance + 5 WHERE balance_id = 'bln_wallet'")
    before = [(each.cause, each.subject) for each in verify(closed, "from-genesis").found]
    assert before
    propose(closed)
    assert [(each.cause, each.subject) for each in verify(closed, "from-genesis").found] == before
    assert closed.rows("SELECT count(*) FROM ledger_eod.clusters") == [(1,)]


# What hangs off the chain that ends ----------------------------------------------------------------------------------


def test_an_open_interim_run_of_the_old_chain_is_abandoned_with_it(closed: Books) -> None:
    left = open_interim_at(closed, "2026-02-01 00:01")
    run = propose(closed)
    with pytest.raises(OutOfOrder, match="a new chain begins with the close of 2026-01-31"):
        open_interim_at(closed, "2026-02-01 00:06", business_date="2026-01-31")
    waiting(closed, run)
    approve(closed, run)
    closed.finish(run)
    assert left is not None
    with closed.engine.connect() as connection:
        assert find_run(connection, left.run_id).status == "abandoned"
    assert_proved(closed, interim(closed, "2026-02-01 12:00"))


def test_discrepancies_of_rows_repaired_on_purpose_close_with_the_chain(closed: Books) -> None:
    unguarded(
        closed, "blnk.transactions",
        "UPDATE blnk.transactions SET amount = 3.5, precise_amount = 350 WHERE reference = 'second'",
    )  # fmt: skip
    for side, balance in (("credit", "wallet"), ("debit", "world_usd")):
        closed.execute(
            f"UPDATE blnk.balances SET {side}_balance = {side}_balance + 100, "
            f"balance = balance {'+' if side == 'credit' else '-'} 100 WHERE balance_id = 'bln_{balance}'"
        )
    assert verify(closed, "from-genesis").found
    begin(closed)
    assert verify(closed, "from-genesis").findings == []
    assert closed.rows("SELECT count(*) FROM ledger_eod.discrepancies WHERE closed_at IS NULL") == [(0,)]


def test_while_a_table_made_anew_waits_history_is_summed_from_source(closed: Books) -> None:
    make_anew(closed, order="id DESC")
    run = propose(closed)
    waiting(closed, run)
    assert closed.balance("wallet", at="2026-01-31") == "11.50"
    with pytest.raises(UnknowableAt):
        closed.balance("wallet", at="2026-01-31", known_at="2026-01-30", from_source=True)


def test_snapshots_of_a_replaced_table_name_no_transactions(closed: Books) -> None:
    named = "SELECT count(last_transaction_id) FROM ledger_eod.daily_balances WHERE business_date = '2026-01-30'"
    assert closed.rows(named) == [(3,)]
    make_anew(closed, order="id DESC", keys_start_at="min(id)")
    begin(closed)
    assert closed.rows(named) == [(0,)]
    assert closed.rows(named.replace("01-30", "01-31")) == [(3,)]


def test_a_proposal_from_another_cluster_is_not_dropped_in_silence(closed: Books) -> None:
    run = propose(closed)
    waiting(closed, run)
    approve(closed, run)
    closed.execute("ALTER TABLE ledger_eod.clusters DISABLE TRIGGER USER")
    closed.execute("UPDATE ledger_eod.clusters SET system_identifier = 'another'")
    with pytest.raises(OutOfOrder, match="opened before this database was restored"):
        closed.close_day("2026-01-31", now="2026-02-01 00:10")
    with closed.engine.begin() as connection:
        abandon_run(connection, run.run_id)
    again = propose(closed)
    waiting(closed, again)
    approve(closed, again)
    assert closed.finish(again).certified


# What is refused -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("reason", "who"), [("", "ada"), ("  ", "ada"), (REASON, ""), (REASON, " \u200b")])
def test_it_needs_a_reason_and_a_name(closed: Books, reason: str, who: str) -> None:
    with pytest.raises(NewChainRefused, match="needs a reason, and the name"):
        propose(closed, reason=reason, by=who)


def test_without_a_close_there_is_no_chain_to_end(ledger: Ledger) -> None:
    with pytest.raises(NewChainRefused, match="the first close begins a chain by itself"):
        propose(Books(ledger))


def test_it_waits_for_the_date_to_end_and_for_an_open_close(closed: Books) -> None:
    with pytest.raises(PeriodNotEnded):
        propose(closed, now="2026-01-31 23:59")
    open_one = closed.open_day("2026-01-31")
    with pytest.raises(OutOfOrder, match="the close of 2026-01-31 is not certified yet"):
        propose(closed)
    closed.finish(open_one)
    with pytest.raises(PeriodNotEnded):
        propose(closed)
    assert closed.rows("SELECT count(*) FROM ledger_eod.new_chains") == [(0,)]


def test_a_second_proposal_is_the_first_one_or_refused(closed: Books) -> None:
    run = propose(closed)
    assert propose(closed).run_id == run.run_id
    with pytest.raises(NewChainRefused, match="ada has proposed a new chain already"):
        propose(closed, reason="something else")
    waiting(closed, run)
    assert propose(closed).run_id == run.run_id


def test_given_up_it_leaves_the_old_chain_as_it_was(closed: Books) -> None:
    with closed.engine.connect() as connection:
        before = dates_to_close(connection, last_ended=date(2026, 1, 31))
    run = propose(closed)
    waiting(closed, run)
    with closed.engine.begin() as connection:
        abandon_run(connection, run.run_id)
        assert dates_to_close(connection, last_ended=date(2026, 1, 31)) == before
    following = closed.close_day("2026-01-31")
    assert following.genesis_run_id != run.run_id
    assert_proved(closed, following)
    with closed.engine.connect() as connection:
        assert [(chain.reason, first.status) for chain, first in list_new_chains(connection)] == [(REASON, "abandoned")]
    with pytest.raises(UnknownProposal):
        approve(closed, run)


def test_an_approval_is_of_one_new_chain_and_for_a_time(closed: Books) -> None:
    run = propose(closed)
    waiting(closed, run)
    approve(closed, run)
    closed.execute("ALTER TABLE ledger_eod.approvals DISABLE TRIGGER USER")
    closed.execute("UPDATE ledger_eod.approvals SET decided_at = decided_at - interval '1 year'")
    waiting(closed, run)
    approve(closed, run)
    assert closed.finish(run).certified
    again = propose(closed, now="2026-02-02 00:05")
    waiting(closed, again)
    assert chain_of(closed, again).figures_hash != chain_of(closed, run).figures_hash


def test_differences_changed_after_they_were_approved_are_not_certified(closed: Books) -> None:
    unguarded(closed, "blnk.transactions", "DELETE FROM blnk.transactions WHERE reference = 'second'")
    run = propose(closed)
    waiting(closed, run)
    approve(closed, run)
    closed.execute("ALTER TABLE ledger_eod.new_chain_differences DISABLE TRIGGER USER")
    assert closed.execute("DELETE FROM ledger_eod.new_chain_differences WHERE present_credit_balance = 1000") == 1
    with pytest.raises(NotCertified, match="were changed after they were stored for approval"):
        closed.finish(run)


def test_rows_changed_between_counting_and_comparing_are_not_certified(closed: Books) -> None:
    run = propose(closed)
    count_rows(closed.engine, run.run_id)
    unguarded(
        closed, "blnk.transactions",
        "UPDATE blnk.transactions SET amount = 3.5, precise_amount = 350 WHERE reference = 'second'",
    )  # fmt: skip
    with pytest.raises(NotCertified, match="were changed after they were counted"):
        closed.finish(run)


def test_a_close_without_base_that_nobody_proposed_is_not_certified(closed: Books) -> None:
    run = closed.open_day("2026-01-31")
    closed.execute(
        "UPDATE ledger_eod.runs SET base_run_id = NULL, genesis_run_id = run_id WHERE run_id = :run", run=run.run_id
    )
    with pytest.raises(NotCertified, match="nobody proposed a new chain"):
        closed.finish(run)


def test_what_was_proposed_and_approved_is_never_edited(closed: Books) -> None:
    run = begin(closed)
    with pytest.raises(DBAPIError, match="it is evidence"):
        closed.execute("UPDATE ledger_eod.new_chains SET reason = 'another'")
    for table in ("new_chains", "new_chain_differences", "new_chain_transactions"):
        with pytest.raises(DBAPIError, match="is refused: it is evidence"):
            closed.execute(f"TRUNCATE ledger_eod.{table} CASCADE")
    with pytest.raises(DBAPIError, match="is certified: its rows in new_chains are evidence"):
        closed.execute("DELETE FROM ledger_eod.new_chains")
    unguarded(closed, "ledger_eod.new_chains", "UPDATE ledger_eod.new_chains SET reason = 'another'")
    assert [each.evidence.get("new chain") for each in verify(closed, "checksums").found] == ["altered"]
    with closed.engine.connect() as connection:
        assert find_run(connection, run.run_id).certified
        assert connection.scalar(text("SELECT count(*) FROM ledger_eod.approvals")) == 1


def test_interim_runs_go_on_from_the_new_chain(closed: Books) -> None:
    make_anew(closed, order="id")
    with pytest.raises(TableMadeAnew):
        open_interim_at(closed, "2026-02-01 12:00")
    run = begin(closed)
    found = open_interim_at(closed, "2026-02-01 12:00")
    assert found is not None
    assert found.base_run_id == run.run_id
    assert_proved(closed, closed.finish(found))
    assert verify(closed, "since-close").findings == []
    assert verify(closed, "from-genesis").findings == []


@pytest.mark.parametrize("left", ["deleted", "kept with zero"])
def test_accounts_that_were_merged_go_on_in_a_new_chain(closed: Books, left: str) -> None:
    """The shop's rows are the wallet's now; its own row is gone or empty: made and spent within the wallet."""
    zero = ", ".join(
        f"{part} = 0" for part in ("balance", "inflight_balance", *(f"{name}_balance" for name in Figures._fields))
    )
    emptied = f"UPDATE blnk.balances SET {zero} WHERE balance_id = 'bln_shop'"
    closed.execute(
        "SET LOCAL session_replication_role = replica; "
        "UPDATE blnk.transactions SET source = 'bln_wallet' WHERE source = 'bln_shop'; "
        "UPDATE blnk.transactions SET destination = 'bln_wallet' WHERE destination = 'bln_shop'; "
        "UPDATE blnk.balances AS kept SET credit_balance = kept.credit_balance + merged.credit_balance, "
        "debit_balance = kept.debit_balance + merged.debit_balance, balance = kept.balance + merged.balance, "
        "inflight_balance = kept.inflight_balance + merged.inflight_balance, "
        "inflight_credit_balance = kept.inflight_credit_balance + merged.inflight_credit_balance, "
        "inflight_debit_balance = kept.inflight_debit_balance + merged.inflight_debit_balance "
        "FROM blnk.balances AS merged WHERE kept.balance_id = 'bln_wallet' AND merged.balance_id = 'bln_shop'; "
        + ("DELETE FROM blnk.balances WHERE balance_id = 'bln_shop'" if left == "deleted" else emptied)
    )
    run = propose(closed)
    waiting(closed, run)
    assert approve(closed, run, by="ada") == "refused"
    assert {name: figures for name, (figures, _) in compared(closed, run).items()} == {
        "bln_shop": (-100, -300), "bln_wallet": (100, 300),
    }  # fmt: skip
    assert approve(closed, run) == "approved"
    certified = closed.finish(run)
    assert certified.certified
    for close in (certified, closed.close_day("2026-02-01")):
        assert close.genesis_run_id == run.run_id
        with closed.engine.connect() as connection:
            by_hand = add_up(read_rows(connection), before=close.closes_at, cut=Cut.parse(close.cut))
            assert without_zeros(snapshots_of(connection, close)) == without_zeros(by_hand)
            assert set(difference_by_currency(connection, close).values()) == {(0, 0)}
    assert (closed.balance("wallet", at="2026-02-01"), closed.balance("@world", at="2026-02-01")) == ("12.50", "-12.50")
    assert closed.balance("wallet", at="2026-01-31", known_at="2026-01-30") == "11.50"
    assert closed.balance("shop", at="2026-01-31", known_at="2026-01-30") == "1.00"
    for name, amount in (("wallet", "10.00"), ("shop", "0.00")):
        for known_at in ("2026-01-29", "2026-01-30"):
            assert closed.balance(name, at="2026-01-30", known_at=known_at) == amount
    named = [("balance_removed", 3)] if left == "deleted" else []
    for scope in SCOPES:
        found = [(each.cause, each.balance_key) for each in verify(closed, scope).findings]
        assert found == ([] if scope == "checksums" else named)


def test_a_posting_from_before_its_balance_existed_is_counted_by_a_new_chain(closed: Books) -> None:
    """Until the balance is there it is pending; then its day's close is what the new chain says of it."""
    closed.execute("ALTER TABLE blnk.transactions DROP CONSTRAINT fk_transactions_destination")
    closed.insert(
        source="bln_world_usd", destination="bln_purse", currency="USD", precise_amount=700,
        created_at="2026-01-30 10:00", reference="early", stored_too=False,
    )  # fmt: skip
    run = closed.close_day("2026-01-31")
    assert closed.rows("SELECT cause FROM ledger_eod.run_exceptions WHERE run_id = :run", run=run.run_id) == [
        ("unknown_balance",)
    ]
    closed.open("purse")
    run = propose(closed, now="2026-02-02 00:05")
    waiting(closed, run)
    assert compared(closed, run) == {
        "bln_purse": ((700, 0), {"txn_early": 700}), "bln_world_usd": ((-700, 0), {"txn_early": -700}),
    }  # fmt: skip
    assert approve(closed, run) == "approved"
    assert_proved(closed, closed.finish(run))
    assert closed.balance("purse", at="2026-01-30 12:00") == "7.00"
    assert closed.balance("purse", at="2026-01-30 12:00", known_at="2026-01-31") == "0.00"
    assert verify(closed, "checksums").findings == []
