"""Certification: what does not prove is refused with figures, what is certified does not change."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import date

import pytest
from sqlalchemy.exc import DBAPIError

from ledger_db.close.certification import certify_run, refuse_certification
from ledger_db.close.counting import plan_pieces
from ledger_db.close.driver import count_rows
from ledger_db.close.opening import abandon_run, open_close
from ledger_db.close.runs import Run, certified_close_of, find_run, list_runs, lock_open_run
from ledger_db.close.snapshots import ensure_partition, plan_key_ranges, write_snapshot_batch
from ledger_db.core.calendar import BusinessCalendar
from ledger_db.core.key_ranges import KeyRange
from ledger_db.errors import NotCertified, OutOfOrder, PeriodNotEnded, RunNotOpen, UnknownRun
from tasks import close as closing
from tests.testing.books import Books
from tests.testing.oracle import assert_proved, clone, interim, open_interim_at
from tests.testing.verifications import verify

RESTRICT_VIOLATION = "23001"


@pytest.fixture
def opened(books: Books) -> Books:
    """A certified close of 30 January, and more postings on the 31st."""
    books.post("""
        recorded          source  destination  amount
        2026-01-30 09:00  @world  wallet       10.00 USD
        2026-01-30 09:00  @world  purse         7.00 EUR
    """)
    books.close_day("2026-01-30")
    books.post("""
        recorded          source  destination  amount     status
        2026-01-31 09:00  wallet  shop          2.50 USD  APPLIED
        2026-01-31 09:00  wallet  shop          1.00 USD  INFLIGHT
    """)
    return books


@contextmanager
def without_triggers(books: Books, table: str) -> Iterator[None]:
    """As an administrator who tampers would do."""
    books.execute(f"ALTER TABLE ledger_eod.{table} DISABLE TRIGGER USER")
    yield
    books.execute(f"ALTER TABLE ledger_eod.{table} ENABLE TRIGGER USER")


def written(books: Books) -> Run:
    """The close of 31 January, all rows written and not certified yet."""
    run = books.open_day("2026-01-31")
    count_rows(books.engine, run.run_id)
    with books.engine.begin() as connection:
        ensure_partition(connection, run.business_date)
    with books.engine.begin() as connection:
        write_snapshot_batch(connection, run.run_id, KeyRange(1, 100, 100))
    return run


def refusal(books: Books, run: Run) -> str:
    with books.engine.begin() as connection, pytest.raises(NotCertified) as refused:
        certify_run(connection, run.run_id)
    hint = refused.value.hint
    return f"{refused.value}; {hint}" if hint else str(refused.value)


def test_a_tampered_base_snapshot_is_refused_with_expected_found_and_difference(opened: Books) -> None:
    with without_triggers(opened, "balance_snapshots"):
        opened.execute(
            "UPDATE ledger_eod.balance_snapshots SET credit_balance = credit_balance + 50 WHERE balance_key = "
            "(SELECT id FROM blnk.balances WHERE balance_id = 'bln_wallet')"
        )
    run = written(opened)
    assert refusal(opened, run) == (
        f"close 2026-01-31 (run {run.run_id}) USD credit_balance: snapshots add up to 1300, base and activity to 1250, "
        "difference +50; verify_checksums"
    )


def test_a_base_that_is_restored_as_the_checksums_say_lets_the_chain_go_on(opened: Books) -> None:
    """The way that docs/operating-the-night.md describes."""
    change = (
        "UPDATE ledger_eod.balance_snapshots SET credit_balance = credit_balance {} WHERE balance_key = 1 "
        "AND run_id = (SELECT max(run_id) FROM ledger_eod.runs WHERE status = 'certified')"
    )
    with without_triggers(opened, "balance_snapshots"):
        opened.execute(change.format("+ 50"))
    run = written(opened)
    assert "difference +50; verify_checksums" in refusal(opened, run)
    named = [found for found in verify(opened, "checksums").found if found.balance_id is not None]
    ((stored, proven),) = [(found.stored, found.proven) for found in named]
    assert stored is not None
    assert proven is not None
    with without_triggers(opened, "balance_snapshots"):
        opened.execute(change.format(f"- {stored.credit - proven.credit}"))
    assert verify(opened, "checksums").findings == []
    assert "difference +50; verify_checksums" in refusal(opened, run), "its own rows followed the changed ones"
    with opened.engine.begin() as connection:
        abandon_run(connection, run.run_id)
    again = opened.close_day(str(run.business_date))
    assert again.certified
    assert_proved(opened, again)


def test_a_missing_base_snapshot_is_refused(opened: Books) -> None:
    with without_triggers(opened, "balance_snapshots"):
        opened.execute(
            "DELETE FROM ledger_eod.balance_snapshots WHERE balance_key = "
            "(SELECT id FROM blnk.balances WHERE balance_id = 'bln_purse')"
        )
    run = written(opened)
    assert "EUR credit_balance: snapshots add up to 0, base and activity to 700, difference -700;" in refusal(
        opened, run
    )


def test_tampered_activity_is_refused(opened: Books) -> None:
    run = written(opened)
    with without_triggers(opened, "activity"):
        opened.execute(
            "UPDATE ledger_eod.activity SET inflight_debit_balance = 99 WHERE run_id = :run "
            "AND inflight_debit_balance = 100",
            run=run.run_id,
        )
    assert "USD inflight_debit_balance: snapshots add up to 100, base and activity to 99, difference +1;" in refusal(
        opened, run
    )


def test_activity_that_does_not_cancel_out_is_refused(opened: Books) -> None:
    """Both sides agree with each other, and the books still do not balance: no exception explains it."""
    run = opened.open_day("2026-01-31")
    count_rows(opened.engine, run.run_id)
    opened.execute(
        "DELETE FROM ledger_eod.activity WHERE run_id = :run AND balance_key = "
        "(SELECT id FROM blnk.balances WHERE balance_id = 'bln_shop')",
        run=run.run_id,
    )
    with opened.engine.begin() as connection:
        ensure_partition(connection, run.business_date)
        write_snapshot_batch(connection, run.run_id, KeyRange(1, 100, 100))
    assert refusal(opened, run) == (
        f"close 2026-01-31 (run {run.run_id}) USD posted: credits minus debits are -250, "
        "itemised exceptions explain 0, unexplained -250"
    )


def test_activity_that_lacks_both_sides_is_refused(opened: Books) -> None:
    """Everything adds up to zero without it: only what the counted rows say shows that something is missing."""
    run = opened.open_day("2026-01-31")
    count_rows(opened.engine, run.run_id)
    opened.execute("DELETE FROM ledger_eod.activity WHERE run_id = :run", run=run.run_id)
    with opened.engine.begin() as connection:
        ensure_partition(connection, run.business_date)
        write_snapshot_batch(connection, run.run_id, KeyRange(1, 100, 100))
    assert refusal(opened, run) == (
        f"close 2026-01-31 (run {run.run_id}): piece 1, on hold: its rows say 100, its activity moved 0"
    )


def test_one_plan_covers_every_balance(opened: Books) -> None:
    """The rounds of a close are for balances that commit behind a plan, not for ranges that a plan leaves out."""
    run = opened.open_day("2026-01-31")
    count_rows(opened.engine, run.run_id)
    with opened.engine.begin() as connection:
        ensure_partition(connection, run.business_date)
        ranges = plan_key_ranges(connection, run.run_id, batch_size=2)
    ((balance_count,),) = opened.rows("SELECT count(*) FROM blnk.balances")
    assert sum(keys.balance_count for keys in ranges) == balance_count
    for keys in ranges:
        with opened.engine.begin() as connection:
            assert write_snapshot_batch(connection, run.run_id, keys) == keys.balance_count
    with opened.engine.begin() as connection:
        assert plan_key_ranges(connection, run.run_id, batch_size=2) == []


def test_a_missing_row_is_refused_and_the_run_resumes(opened: Books) -> None:
    run = written(opened)
    opened.execute("DELETE FROM ledger_eod.balance_snapshots WHERE run_id = :run AND balance_key = 2", run=run.run_id)
    message = refusal(opened, run)
    assert message == (
        f"close 2026-01-31 (run {run.run_id}): 1 balances have no snapshot, the first with key 2; run_again"
    )
    with opened.engine.begin() as connection:
        refuse_certification(connection, run.run_id, message)
    with opened.engine.begin() as connection:
        still = find_run(connection, run.run_id)
        assert (still.status, still.refusal, still.checksum) == ("open", message, None)
        assert plan_key_ranges(connection, run.run_id, batch_size=10) == [KeyRange(2, 2, 1)]
    certified = opened.close_day("2026-01-31")
    assert (certified.run_id, certified.cut, certified.refusal) == (run.run_id, run.cut, None)
    assert_proved(opened, certified)


def test_a_refused_task_stores_its_reason(opened: Books) -> None:
    run = written(opened)
    opened.execute("DELETE FROM ledger_eod.balance_snapshots WHERE run_id = :run AND balance_key = 2", run=run.run_id)
    with pytest.raises(NotCertified):
        closing.certify_run.fn(run.run_id)
    ((reason,),) = opened.rows("SELECT refusal FROM ledger_eod.runs WHERE status = 'open'")
    assert "1 balances have no snapshot, the first with key 2" in reason
    assert closing.write_snapshots.fn(run.run_id, [KeyRange(2, 2, 1)]) == 1
    certificate = closing.certify_run.fn(run.run_id)
    assert certificate.run.certified
    assert [total.difference for total in certificate.totals] == [0, 0]


def test_a_run_without_its_activity_takes_no_snapshots_and_no_certificate(opened: Books) -> None:
    run = opened.open_day("2026-01-31")
    with opened.engine.begin() as connection, pytest.raises(RunNotOpen, match="has no activity yet"):
        write_snapshot_batch(connection, run.run_id, KeyRange(1, 100, 100))
    assert "balances have no snapshot" in refusal(opened, run)


@pytest.mark.parametrize(
    "change",
    [
        "UPDATE ledger_eod.balance_snapshots SET credit_balance = 0",
        "UPDATE ledger_eod.balance_snapshots SET run_id = 99",
        "DELETE FROM ledger_eod.balance_snapshots",
        "TRUNCATE ledger_eod.balance_snapshots",
        "TRUNCATE ledger_eod.balance_snapshots_2026_01",
        "DELETE FROM ledger_eod.balance_snapshots_2026_01",
        "UPDATE ledger_eod.balance_snapshots_2026_01 SET debit_balance = 1",
        "UPDATE ledger_eod.activity SET is_late = true",
        "DELETE FROM ledger_eod.activity",
        "TRUNCATE ledger_eod.activity",
        "UPDATE ledger_eod.run_totals SET credit_balance = 0",
        "DELETE FROM ledger_eod.run_totals",
        "UPDATE ledger_eod.runs SET checksum = 'x'",
        "UPDATE ledger_eod.runs SET status = 'open'",
        "UPDATE ledger_eod.runs SET cut = pg_current_snapshot()",
        "DELETE FROM ledger_eod.runs",
        "TRUNCATE ledger_eod.runs CASCADE",
    ],
)
def test_certified_rows_do_not_change(opened: Books, change: str) -> None:
    before = [
        opened.rows(f"SELECT * FROM ledger_eod.{table} ORDER BY 1, 2")
        for table in ("balance_snapshots", "activity", "run_totals", "runs")
    ]
    with pytest.raises(DBAPIError) as refused:
        opened.execute(change)
    assert getattr(refused.value.orig, "sqlstate", None) == RESTRICT_VIOLATION
    assert before == [
        opened.rows(f"SELECT * FROM ledger_eod.{table} ORDER BY 1, 2")
        for table in ("balance_snapshots", "activity", "run_totals", "runs")
    ]


def test_a_certified_run_takes_no_more_rows(opened: Books) -> None:
    run = opened.close_day("2026-01-31")
    for call in (
        lambda connection: write_snapshot_batch(connection, run.run_id, KeyRange(1, 100, 100)),
        lambda connection: plan_pieces(connection, run.run_id, piece_size=10),
        lambda connection: abandon_run(connection, run.run_id),
        lambda connection: lock_open_run(connection, run.run_id, shared=True),
    ):
        with (
            opened.engine.begin() as connection,
            pytest.raises(RunNotOpen, match="is certified: it takes no more rows"),
        ):
            call(connection)


def test_dates_out_of_order_are_refused_and_leave_no_run(opened: Books) -> None:
    before = opened.rows("SELECT * FROM ledger_eod.runs")
    with pytest.raises(PeriodNotEnded, match=r"2026-01-31 has not ended: it closes at 2026-02-01T00:00:00\+00:00"):
        opened.open_day("2026-01-31", now="2026-01-31 23:59:59")
    with pytest.raises(OutOfOrder, match="2026-01-29 lies behind the newest certified close 2026-01-30"):
        opened.open_day("2026-01-29")
    with pytest.raises(PeriodNotEnded, match="2026-02-05 has not begun"):
        open_interim_at(opened, "2026-02-01 00:00", business_date="2026-02-05")
    assert opened.rows("SELECT * FROM ledger_eod.runs") == before
    unfinished = opened.open_day("2026-01-31", now="2026-02-01 00:00")  # at closes_at itself it has ended
    with pytest.raises(OutOfOrder, match="the close of 2026-01-31 is not certified yet: finish it before 2026-02-01"):
        opened.open_day("2026-02-01")
    assert opened.open_day("2026-01-31") == unfinished


def test_an_abandoned_run_leaves_no_rows_and_its_date_opens_anew(opened: Books) -> None:
    run = written(opened)
    opened.post("""
        recorded          source  destination  amount
        2026-01-31 10:00  @world  wallet       3.00 USD
    """)
    with opened.engine.begin() as connection:
        assert abandon_run(connection, run.run_id).status == "abandoned"
    for table in ("balance_snapshots", "activity", "run_exceptions", "run_totals"):
        assert opened.rows(f"SELECT count(*) FROM ledger_eod.{table} WHERE run_id = :run", run=run.run_id) == [(0,)]
    with opened.engine.begin() as connection, pytest.raises(RunNotOpen, match="is abandoned"):
        write_snapshot_batch(connection, run.run_id, KeyRange(1, 100, 100))
    with opened.engine.begin() as connection, pytest.raises(RunNotOpen, match="is abandoned"):
        certify_run(connection, run.run_id)
    again = opened.close_day("2026-01-31")
    assert again.run_id > run.run_id
    assert opened.balance("wallet", at="2026-02-01", known_at="2026-01-31") == "10.50"  # the new cut knows the 3.00
    assert_proved(opened, again)
    with opened.engine.connect() as connection:
        assert certified_close_of(connection, date(2026, 1, 31)) == again
        assert [found.status for found in list_runs(connection)] == ["certified", "abandoned", "certified"]
        assert list_runs(connection, kind="interim") == []
        with pytest.raises(UnknownRun, match="there is no run 99"):
            abandon_run(connection, 99)


def test_abandoning_an_interim_run_leaves_the_other_instances_of_the_day(opened: Books) -> None:
    first = interim(opened, "2026-01-31 10:00")
    opened.open("new")
    second = open_interim_at(opened, "2026-01-31 11:00")
    assert second is not None
    with opened.engine.begin() as connection:
        abandon_run(connection, second.run_id)
    assert_proved(opened, first)
    third = interim(opened, "2026-01-31 12:00")
    assert third.snapshot_count == 1


@pytest.mark.parametrize(
    "column", ["credit_balance", "debit_balance", "inflight_credit_balance", "inflight_debit_balance"]
)
def test_the_checksum_changes_when_any_figure_does(opened: Books, column: str) -> None:
    run = written(opened)
    with clone(opened.ledger) as copy:
        untouched = Books(copy).close_day("2026-01-31")
    # moved from one balance to another of the same currency: every total stays as it is
    with without_triggers(opened, "balance_snapshots"):
        for balance_id, step in (("bln_wallet", 1), ("bln_shop", -1)):
            opened.execute(
                f"UPDATE ledger_eod.balance_snapshots SET {column} = {column} + :step WHERE run_id = :run "
                "AND balance_key = (SELECT id FROM blnk.balances WHERE balance_id = :id)",
                step=step,
                run=run.run_id,
                id=balance_id,
            )
    tampered = opened.close_day("2026-01-31")
    assert untouched.checksum is not None
    assert tampered.checksum is not None
    assert len(tampered.checksum) == 64
    assert tampered.checksum != untouched.checksum


@pytest.mark.parametrize(
    "row",
    [
        "INSERT INTO ledger_eod.activity SELECT run_id, balance_key + 1000, effective_date, TRUE, 1, 5, 0, 0, 0, NULL, "
        "1 FROM ledger_eod.activity LIMIT 1",
        "INSERT INTO ledger_eod.balance_snapshots SELECT run_id, balance_key + 1000, NULL, business_date, kind, 5, 0, "
        "0, 0 FROM ledger_eod.balance_snapshots LIMIT 1",
        "INSERT INTO ledger_eod.run_totals SELECT run_id, 'XXX', 1, 5, 0, 0, 0, 0, 0 FROM ledger_eod.runs LIMIT 1",
        "INSERT INTO ledger_eod.run_exceptions SELECT run_id, 1, 'USD', 'made up', 5, 0, 1 "
        "FROM ledger_eod.runs LIMIT 1",
        "INSERT INTO ledger_eod.run_keys SELECT run_id, 'counted', 9, business_date, 9, '{[80000,80001)}' "
        "FROM ledger_eod.runs LIMIT 1",
        "INSERT INTO ledger_eod.row_digests SELECT run_id, 9, business_date, 0, 0, 0, '' FROM ledger_eod.runs LIMIT 1",
        "INSERT INTO ledger_eod.run_pieces SELECT run_id, 9, 'new', 1, 2 FROM ledger_eod.runs LIMIT 1",
    ],
)
def test_rows_put_into_a_certified_run_by_hand_are_refused(opened: Books, row: str) -> None:
    with pytest.raises(DBAPIError, match="takes no more rows in"):
        opened.execute(row)


def test_a_date_that_would_leave_a_gap_is_refused(opened: Books) -> None:
    calendar = BusinessCalendar()
    with opened.engine.begin() as connection, pytest.raises(OutOfOrder, match="2026-01-31 comes before 2026-02-01"):
        open_close(
            connection, business_date=date(2026, 2, 1), calendar=calendar, now=calendar.closes_at(date(2026, 2, 1))
        )
