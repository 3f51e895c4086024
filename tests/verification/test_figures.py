"""Stored figures that answers and later closes are made of: whatever is altered, the checksums verification says so."""

from __future__ import annotations

import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError

from ledger_db.close import figure_digests
from ledger_db.close.opening import abandon_run
from ledger_db.core.amounts import plain
from ledger_db.verification import driver
from ledger_db.verification.closed_dates import RowsLeftOut
from tests.testing.books import Books, unguarded
from tests.testing.oracle import interim
from tests.testing.verifications import verify


@pytest.fixture
def closed(books: Books) -> Books:
    """Two closed days; the second has a late arrival, and an exception."""
    books.post("""
        recorded          effective         source  destination  amount      reference
        2026-01-30 09:00  -                 @world  wallet       100.00 USD  first
    """)
    books.insert(
        source=books.open("@world"), destination=books.open("purse", "EUR"), currency="USD", precise_amount=700,
        created_at="2026-01-30 10:00",
    )  # fmt: skip
    books.close_day("2026-01-30")
    books.post("""
        recorded          effective         source  destination  amount      reference
        2026-01-31 09:00  -                 wallet  shop          30.00 USD  second
        2026-01-31 09:01  2026-01-30 08:00  @world  wallet        11.00 USD  late
    """)
    books.close_day("2026-01-31")
    return books


def test_nothing_is_found_on_figures_as_they_were_stored(closed: Books) -> None:
    assert verify(closed, "checksums").findings == []
    assert closed.rows("SELECT run_id, subject FROM ledger_eod.figure_digests ORDER BY run_id, subject") == [
        (run_id, subject)
        for run_id, subjects in (
            (1, "activity, captured balances, cluster, exceptions, keys, pieces, run, samples, totals"),
            (2, "activity, captured balances, keys, pieces, run, samples, totals"),
        )
        for subject in subjects.split(", ")
    ]


def test_activity_in_ranges_has_the_digest_that_it_has_at_once(books: Books, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(6):  # in four parts of 1,024 keys, with gaps
        books.open(f"w{number}")
        books.execute("SELECT setval('blnk.balances_id_seq', :key)", key=(number // 2) * 3000 + number + 10)
    books.execute(
        "INSERT INTO blnk.transactions (transaction_id, source, destination, precise_amount, status, created_at) "
        "SELECT 'txn_' || n, 'bln_w0', 'bln_w' || n, 100, 'APPLIED', '2026-01-30 09:00' FROM generate_series(1, 5) AS n"
    )
    run = books.close_day("2026-01-30")
    with books.engine.connect() as connection:
        at_once = figure_digests.digest_figures(connection, run.run_id)
        for rows_at_once in (1, 2, 3):
            monkeypatch.setattr(figure_digests, "ROWS_AT_ONCE", rows_at_once)
            assert figure_digests.digest_figures(connection, run.run_id) == at_once
        # as one statement says it, and as closes before this one stored it
        assert at_once["activity"] == connection.scalar(
            text(
                "SELECT encode(sha256(string_agg(digest, CAST('' AS bytea) ORDER BY part)), 'hex') FROM ("
                "SELECT balance_key >> 10 AS part, sha256(convert_to(string_agg(CAST(row("
                "balance_key, effective_date - date '2000-01-01', piece, is_late, posting_count, "
                "trim_scale(credit_balance), trim_scale(debit_balance), trim_scale(inflight_credit_balance), "
                "trim_scale(inflight_debit_balance), last_transaction_key) AS text), '' ORDER BY balance_key), "
                "'UTF8')) AS digest FROM ledger_eod.activity GROUP BY 1) AS parts"
            )
        )


@pytest.mark.parametrize(
    ("table", "statement", "date", "subject"),
    [
        (
            "run_totals",
            "UPDATE ledger_eod.run_totals SET debit_balance = debit_balance + 1 WHERE run_id = 1 AND currency = 'USD'",
            "2026-01-30", "totals",
        ),
        (
            "run_totals",
            "DELETE FROM ledger_eod.run_totals WHERE run_id = 2 AND currency = 'EUR'",
            "2026-01-31", "totals",
        ),
        (
            "run_exceptions",
            "UPDATE ledger_eod.run_exceptions SET cause = 'legacy_rate' WHERE currency = 'EUR'",
            "2026-01-30", "exceptions",
        ),
        (
            "run_exceptions",
            "INSERT INTO ledger_eod.run_exceptions VALUES (2, 1, 'USD', 'cross_currency', 0, 0, 1)",
            "2026-01-31", "exceptions",
        ),
        (
            "captured_balances",
            "UPDATE ledger_eod.captured_balances SET first_run_id = 2 WHERE balance_id = 'bln_wallet'",
            "2026-01-30", "captured balances",
        ),
        (
            "captured_balances",
            "UPDATE ledger_eod.captured_balances SET gone_run_id = 2 WHERE balance_id = 'bln_wallet'",
            "2026-01-31", "balances since the base",
        ),
        (
            "captured_balances",
            "UPDATE ledger_eod.captured_balances SET gone_run_id = 0 WHERE balance_id = 'bln_wallet'",
            "2026-01-30", "balances since the base",
        ),
        (
            "captured_balances",
            "INSERT INTO ledger_eod.captured_balances VALUES (999, 'bln_ghost', 'USD', -1, NULL)",
            "2026-01-30", "balances since the base",
        ),
        (
            "run_keys",
            "UPDATE ledger_eod.run_keys SET keys = keys + '{[900,901)}' "
            "WHERE run_id = 2 AND effective_date = '2026-01-31'",
            "2026-01-31", "keys",
        ),
        (
            "runs",
            "UPDATE ledger_eod.runs SET closes_at = closes_at - interval '1 hour' WHERE run_id = 1",
            "2026-01-30", "run",
        ),
        ("runs", "UPDATE ledger_eod.runs SET snapshot_count = 7 WHERE run_id = 2", "2026-01-31", "run"),
        (
            "sampled_rows",
            "DELETE FROM ledger_eod.sampled_rows WHERE transaction_key = (SELECT max(id) FROM blnk.transactions)",
            "2026-01-31", "samples",
        ),
        ("clusters", "UPDATE ledger_eod.clusters SET max_recorded_xid = '9999'", "2026-01-30", "cluster"),
        ("clusters", "UPDATE ledger_eod.clusters SET transactions_oid = '9'", "2026-01-30", "cluster"),
        ("cluster_keys", "INSERT INTO ledger_eod.cluster_keys VALUES (1, 9, '{[7,8)}')", "2026-01-30", "cluster"),
        (
            "chain_differences",
            "INSERT INTO ledger_eod.chain_differences VALUES (1, 1, 100, 0, 0, 0)",
            "2026-01-30", "chain differences",
        ),
        ("run_pieces", "UPDATE ledger_eod.run_pieces SET counted_count = 1 WHERE run_id = 1", "2026-01-30", "pieces"),
        (
            "figure_digests",
            "DELETE FROM ledger_eod.figure_digests WHERE run_id = 2 AND subject = 'keys'",
            "2026-01-31", "keys",
        ),
    ],
)  # fmt: skip
def test_an_altered_figure_is_named(closed: Books, table: str, statement: str, date: str, subject: str) -> None:
    unguarded(closed, f"ledger_eod.{table}", statement)
    found = verify(closed, "checksums").findings
    assert (str(found[0].business_date), found[0].cause, found[0].evidence[subject]) == (
        date, "row_edited_or_removed", "altered",
    )  # fmt: skip


def test_a_late_arrival_altered_with_its_digest_is_not_what_its_rows_say(closed: Books) -> None:
    unguarded(
        closed,
        "ledger_eod.activity",
        "UPDATE ledger_eod.activity SET credit_balance = credit_balance + 7 WHERE run_id = 2 AND is_late",
        rows=2,
    )
    with closed.engine.connect() as connection:
        forged = figure_digests.digest_figures(connection, 2)["activity"]
    unguarded(
        closed,
        "ledger_eod.figure_digests",
        f"UPDATE ledger_eod.figure_digests SET digest = '{forged}' WHERE run_id = 2 AND subject = 'activity'",
    )
    found = verify(closed, "checksums").findings
    assert [(str(each.business_date), each.evidence["activity"]) for each in found] == [
        ("2026-01-30", "not what its rows say"), ("2026-01-30", "not what its rows say"),
    ]  # fmt: skip


def test_a_close_without_its_keys_is_checked_all_the_same(closed: Books) -> None:
    unguarded(closed, "ledger_eod.run_keys", "DELETE FROM ledger_eod.run_keys WHERE run_id = 2", rows=2)
    found = verify(closed, "checksums").findings
    assert [str(each.business_date) for each in found if each.evidence.get("keys") == "altered"] == ["2026-01-31"]
    assert {str(each.business_date) for each in found if "then" in each.evidence} == {"2026-01-30", "2026-01-31"}


def test_an_altered_interim_run_is_named(closed: Books) -> None:
    """Its rows may be edited until a close counts them; what it stored of them may not."""
    closed.post("""
        recorded          effective         source  destination  amount     reference
        2026-02-01 09:00  2026-01-30 09:00  wallet  shop          5.00 USD  third
    """)
    run = interim(closed, "2026-02-01 10:00")
    unguarded(
        closed, "blnk.transactions", "UPDATE blnk.transactions SET effective_date = NULL WHERE reference = 'third'"
    )
    checked = driver.verify(closed.engine, scope="checksums")
    assert (checked.findings, checked.compared.rows_left_out) == ([], {RowsLeftOut.interim: 1})
    for table, statement, rows, subject in (
        ("activity", "UPDATE ledger_eod.activity SET is_late = FALSE", 2, "activity"),
        ("run_keys", "DELETE FROM ledger_eod.run_keys", 1, "keys"),
        ("balance_snapshots", "UPDATE ledger_eod.balance_snapshots SET debit_balance = 0", 4, "snapshots"),
    ):
        unguarded(closed, f"ledger_eod.{table}", f"{statement} WHERE run_id = {run.run_id}", rows=rows)
        found = verify(closed, "checksums").findings
        assert (run.run_id, "altered") in [(each.evidence["run_id"], each.evidence.get(subject)) for each in found]


@pytest.mark.parametrize("run_id", [-1, 0, 1, 2, 3, 10_000])
def test_only_an_open_run_captures_a_balance_or_finds_it_gone(closed: Books, run_id: int) -> None:
    with pytest.raises(DBAPIError, match=f"run {run_id} is not open: it captures no balance"):
        closed.execute(f"INSERT INTO ledger_eod.captured_balances VALUES (999, 'bln_ghost', 'USD', {run_id}, NULL)")
    with pytest.raises(DBAPIError, match=f"run {run_id} is not open: it finds no balance gone"):
        closed.execute(f"UPDATE ledger_eod.captured_balances SET gone_run_id = {run_id} WHERE balance_key = 1")


CAPTURED_BY_OTHERS = "UPDATE ledger_eod.captured_balances SET {} WHERE balance_id = 'bln_{}'"


def test_balances_that_a_run_captured_that_was_given_up_are_covered_by_the_next_close(closed: Books) -> None:
    """The abandoned run is in no chain; what it captured is answered for all the same."""
    closed.execute("ALTER TABLE blnk.balances DISABLE TRIGGER USER")
    closed.open("idle")
    closed.close_day("2026-02-01")
    closed.open("visitor")
    closed.execute("DELETE FROM blnk.balances WHERE balance_id = 'bln_idle'")
    with closed.engine.begin() as connection:
        abandon_run(connection, closed.open_day("2026-02-02").run_id)
    closed.open("late visitor")
    run = closed.close_day("2026-02-02")
    closed.open("newest")
    closed.close_day("2026-02-03")
    assert closed.rows(
        "SELECT balance_id, first_run_id, gone_run_id FROM ledger_eod.captured_balances WHERE first_run_id > 2 "
        "ORDER BY balance_key"
    ) == [("bln_idle", 3, 4), ("bln_visitor", 4, None), ("bln_late visitor", 5, None), ("bln_newest", 6, None)]
    assert verify(closed, "checksums").findings == []
    for name, change, back in (
        ("visitor", "currency = 'EUR'", "currency = 'USD'"),
        ("visitor", "first_run_id = 3", "first_run_id = 4"),
        ("visitor", "gone_run_id = 5", "gone_run_id = NULL"),
        ("idle", "gone_run_id = NULL", "gone_run_id = 4"),
        ("idle", "gone_run_id = 6", "gone_run_id = 4"),
    ):
        unguarded(closed, "ledger_eod.captured_balances", CAPTURED_BY_OTHERS.format(change, name))
        found = verify(closed, "checksums").findings
        assert (run.run_id, "altered") in [
            (each.evidence["run_id"], each.evidence.get("balances since the base")) for each in found
        ], (name, change)
        unguarded(closed, "ledger_eod.captured_balances", CAPTURED_BY_OTHERS.format(back, name))
        assert verify(closed, "checksums").findings == []


def test_an_altered_late_arrival_is_named_with_its_balance_and_the_snapshots_are_not_accused(closed: Books) -> None:
    """It is what ``balance_at`` answers from: before the edit 111.00 at the end of 30 January, after it 999.00."""
    unguarded(
        closed,
        "ledger_eod.activity",
        "UPDATE ledger_eod.activity SET credit_balance = 89900 WHERE run_id = 2 AND is_late AND credit_balance > 0",
    )
    assert closed.balance("wallet", at="2026-01-31") == "999.00"
    on_date, on_balance = verify(closed, "checksums").findings
    assert (str(on_date.business_date), on_date.evidence) == (
        "2026-01-31", {"close": "2026-01-31", "run_id": 2, "activity": "altered"},
    )  # fmt: skip
    assert on_balance.stored is not None
    assert on_balance.proven is not None
    assert str(on_balance.business_date) == "2026-01-30"
    assert (plain(on_balance.stored.credit), plain(on_balance.proven.credit)) == ("89900", "1100")
    assert closed.rows(
        "SELECT balance_id FROM ledger_eod.captured_balances WHERE balance_key = :key", key=on_balance.balance_key
    ) == [("bln_wallet",)]


def test_the_checksum_tells_no_transaction_from_one_with_key_zero(closed: Books) -> None:
    closed.open("idle")
    closed.close_day("2026-02-01")
    unguarded(
        closed,
        "ledger_eod.balance_snapshots",
        "UPDATE ledger_eod.balance_snapshots SET last_transaction_key = 0 WHERE last_transaction_key IS NULL",
    )
    found = verify(closed, "checksums").findings
    assert [(str(each.business_date), each.evidence["snapshots"]) for each in found] == [("2026-02-01", "altered")]
