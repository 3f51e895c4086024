"""A ledger as an earlier version left it: every migration since runs on it, and every answer stays what it was.

``fixtures/NUMBER.sql`` is a dump by the version whose last migration has that number, ``NUMBER.json`` what that version
answered: for each balance and instant credit, debit, inflight credit and inflight debit, as known now and as known at
each certified run. 0006 was restored once before it was dumped, so its first runs are of another cluster than its last;
it has late and future-dated entries, holds over midnight, a correction, open discrepancies, an interim run, and a close
that is half written.
"""

from __future__ import annotations

import json
import subprocess
from collections import Counter
from datetime import date
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError

from ledger_db.attach.migrate import migrate, schema_state
from ledger_db.close.driver import complete_run
from ledger_db.close.later_digests import Fate, digest_old_closes, old_closes
from ledger_db.close.opening import abandon_run
from ledger_db.close.runs import find_run
from ledger_db.errors import UnknowableAt
from ledger_db.history.balance_at import balance_at
from ledger_db.server import embedded
from tests.testing.books import Books, Ledger, instant, read_table, unguarded
from tests.testing.ledger_model import keys_in
from tests.testing.oracle import Cut, add_up, read_rows, snapshots_of, without_zeros
from tests.testing.verifications import verify

FIXTURES = Path(__file__).with_name("fixtures")
VERSIONS = sorted(path.stem for path in FIXTURES.glob("*.sql"))

Answers = dict[str, dict[str, list[str]]]


def restored(ledger: Ledger, version: str) -> Books:
    """The fixture of a version in a database of its own, as that version left it."""
    subprocess.run(
        [
            str(embedded.binaries() / "psql"), "-q", "-v", "ON_ERROR_STOP=1", "-f", str(FIXTURES / f"{version}.sql"),
            "-d", ledger.url.set(drivername="postgresql").render_as_string(hide_password=False),
        ],
        check=True, timeout=60, stdout=subprocess.DEVNULL,
    )  # fmt: skip
    return Books(ledger)


def upgraded(ledger: Ledger, version: str) -> Books:
    """The fixture of a version in a database of its own, migrated to this one."""
    books = restored(ledger, version)
    migrate(ledger.engine)
    return books


def expected(version: str) -> dict[str, Any]:
    answers: dict[str, Any] = json.loads((FIXTURES / f"{version}.json").read_text())
    return answers


def answers(books: Books, wanted: Answers, **how: Any) -> Answers:
    """What this version answers to the questions that an earlier one was asked."""
    with books.engine.connect() as connection:
        return {
            balance_id: {
                written: [
                    str(getattr(balance_at(connection, balance_id, instant(written), **how), f"{part}_balance"))
                    for part in ("credit", "debit", "inflight_credit", "inflight_debit")
                ]
                for written in asked
            }
            for balance_id, asked in wanted.items()
        }


def test_there_is_a_fixture() -> None:
    assert "0006" in VERSIONS


@pytest.mark.parametrize("version", VERSIONS)
def test_every_answer_is_as_before(empty_database: Ledger, version: str) -> None:
    then = expected(version)
    books = upgraded(empty_database, version)
    with books.engine.connect() as connection:
        assert schema_state(connection).is_current
    for from_source in (False, True):
        assert answers(books, then["now"], from_source=from_source) == then["now"]


@pytest.mark.parametrize("version", VERSIONS)
def test_what_was_known_at_a_run_is_answered_as_before_or_refused(empty_database: Ledger, version: str) -> None:
    """Runs of the cluster before could not say it either without their own cluster; their snapshots can be read."""
    then = expected(version)
    books = upgraded(empty_database, version)
    for run_id, asked in then["known_at"].items():
        if int(run_id) >= then["first_run_of_its_cluster"]:
            for from_source in (False, True):
                assert answers(books, asked, known_at=int(run_id), from_source=from_source) == asked
        else:
            with pytest.raises(UnknowableAt, match=rf"run {run_id}\) did not store which rows it counted: read its"):
                answers(books, asked, known_at=int(run_id))


@pytest.mark.parametrize("version", VERSIONS)
def test_snapshots_and_what_was_found_are_kept(empty_database: Ledger, version: str) -> None:
    then = expected(version)
    books = upgraded(empty_database, version)
    with books.engine.connect() as connection:
        for run_id in map(int, then["known_at"]):
            run = find_run(connection, run_id)
            if run.kind == "close":
                written = f"{run.closes_at:%Y-%m-%d}"
                assert {
                    balance_id: [str(amount) for amount in figures]
                    for balance_id, figures in snapshots_of(connection, run).items()
                } == {balance_id: asked[written] for balance_id, asked in then["known_at"][str(run_id)].items()}
    assert books.rows(
        "SELECT cause, found_by::text, closed_correction_id FROM ledger_eod.discrepancies ORDER BY discrepancy_id"
    ) == [
        ("cross_currency", "since-close", None), ("tampered_stored_row", "since-close", 1),
        ("tampered_stored_row", "since-close", None),
    ]  # fmt: skip


@pytest.mark.parametrize("version", VERSIONS)
def test_the_next_call_deals_with_the_open_close(empty_database: Ledger, version: str) -> None:
    """In a copy its cut means nothing: the date is opened again, and proved."""
    then = expected(version)
    books = upgraded(empty_database, version)
    run = books.open_day("2026-01-07")
    assert run.run_id != then["open_run"]
    certified = complete_run(books.engine, run.run_id, batch_size=3).run
    with books.engine.connect() as connection:
        assert find_run(connection, then["open_run"]).status == "abandoned"
        assert certified.certified
    assert answers(books, then["now"]) == then["now"]


@pytest.mark.parametrize("version", VERSIONS)
def test_a_close_left_open_in_this_cluster_is_resumed(empty_database: Ledger, version: str) -> None:
    then = expected(version)
    books = restored(empty_database, version)
    with books.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.execute(  # beyond the ids that the fixture's rows have
            text("DO $$ BEGIN FOR n IN 1..1000 LOOP PERFORM pg_current_xact_id(); COMMIT; END LOOP; END $$")
        )
    books.execute(
        "SET LOCAL session_replication_role = replica; UPDATE ledger_eod.runs SET system_identifier = "
        "(SELECT CAST(system_identifier AS text) FROM pg_control_system()) "
        f"WHERE run_id >= {then['first_run_of_its_cluster']}"
    )
    (left,) = books.rows("SELECT CAST(cut AS text) FROM ledger_eod.runs WHERE run_id = :run", run=then["open_run"])
    migrate(books.engine)
    run = books.open_day("2026-01-07")
    assert (run.run_id, run.cut) == (then["open_run"], *left)
    certified = complete_run(books.engine, run.run_id, batch_size=3).run
    ((late_key,),) = books.rows("SELECT id FROM blnk.transactions WHERE reference = 'late7'")  # recorded after the cut
    assert late_key not in keys_in(books, "counted", certified)
    following = books.close_day("2026-01-08")
    assert keys_in(books, "counted", following) == {late_key: date(2026, 1, 6)}
    for each in (certified, following):
        assert each.certified
        with books.engine.connect() as connection:
            by_hand = add_up(read_rows(connection), before=each.closes_at, cut=Cut.parse(each.cut))
            assert without_zeros(snapshots_of(connection, each)) == without_zeros(by_hand)
    assert answers(books, then["now"]) == then["now"]


# 0007: what each close counted, as keys -------------------------------------------------------------------------------


def keys_of(books: Books, key_set: str) -> list[tuple[int, str, int]]:
    """The keys of a set: run, date and key."""
    return [
        (run_id, str(day), key)
        for run_id, day, first, end in books.rows(
            "SELECT run_id, effective_date, lower(span), upper(span) FROM ledger_eod.run_keys, unnest(keys) AS span "
            "WHERE key_set = CAST(:key_set AS ledger_eod.key_set) AND block = lower(span) >> 13 ORDER BY 1, 2, 3",
            key_set=key_set,
        )
        for key in range(first, end)
    ]


def test_a_chain_counted_each_row_once_that_its_closes_saw(empty_database: Ledger) -> None:
    books = upgraded(empty_database, "0006")
    counted = [key for _, _, key in keys_of(books, "counted")]
    assert len(counted) == len(set(counted))
    for run_id, written in books.rows("SELECT run_id, CAST(cut AS text) FROM ledger_eod.runs WHERE run_id IN (6, 7)"):
        visible = {
            key
            for key, xid in books.rows("SELECT id, CAST(CAST(recorded_xid AS text) AS bigint) FROM blnk.transactions")
            if Cut.parse(written).sees(xid)
        }
        so_far = {key for run, _, key in keys_of(books, "counted") if run <= run_id}
        pending = {key for run, _, key in keys_of(books, "pending") if run == run_id}
        assert so_far | pending == visible
        assert so_far & pending == set()


def test_a_close_counted_as_many_rows_of_a_date_as_it_had_digested(empty_database: Ledger) -> None:
    books = upgraded(empty_database, "0006")
    never = {key for (key,) in books.rows("SELECT id FROM blnk.transactions WHERE status = 'QUEUED'")}
    assert Counter((run, day) for run, day, key in keys_of(books, "counted") if key not in never) == {
        (run, str(day)): count
        for run, day, count in books.rows(
            "SELECT run_id, effective_date, transaction_count FROM ledger_eod.row_checksums WHERE run_id >= 6"
        )
    }


def test_what_was_counted_adds_up_to_the_newest_snapshots(empty_database: Ledger) -> None:
    books = upgraded(empty_database, "0006")
    assert books.rows("SELECT * FROM ledger_eod.chain_differences") == []


def test_the_other_clusters_runs_have_no_sets(empty_database: Ledger) -> None:
    """What they saw was told by ids that were forgotten when the copy was closed first."""
    books = upgraded(empty_database, "0006")
    assert books.rows("SELECT DISTINCT run_id FROM ledger_eod.run_keys ORDER BY 1") == [(6,), (7,)]
    assert books.rows(
        "SELECT cluster_id, array_agg(run_id ORDER BY run_id) FROM ledger_eod.runs GROUP BY 1 ORDER BY 1"
    ) == [(1, [1, 2, 3, 4, 5]), (2, [6, 7, 8])]
    assert books.rows("SELECT count(*) FROM ledger_eod.cluster_keys") == [(0,)]


def test_an_open_close_is_to_be_counted_anew(empty_database: Ledger) -> None:
    books = upgraded(empty_database, "0006")
    assert books.rows("SELECT collected_at, max_transaction_key FROM ledger_eod.runs WHERE run_id = 8") == [(None, 23)]
    for table in ("activity", "run_exceptions", "row_checksums", "balance_snapshots", "run_keys"):
        assert books.rows(f"SELECT count(*) FROM ledger_eod.{table} WHERE run_id = 8") == [(0,)]


def test_a_row_that_two_closes_counted_is_a_difference(empty_database: Ledger) -> None:
    """Moved to the next date after it was counted, it was counted again: one key, two times in the snapshots."""
    books = restored(empty_database, "0006")
    with books.engine.begin() as connection:
        connection.execute(text("SET LOCAL session_replication_role = replica"))
        connection.execute(text("UPDATE blnk.transactions SET effective_date = '2026-01-06 10:00' WHERE id = 17"))
        for balance_key, side in ((6, "debit_balance"), (7, "credit_balance")):
            for table in ("activity", "balance_snapshots"):
                connection.execute(
                    text(
                        f"UPDATE ledger_eod.{table} SET {side} = {side} + 2000 WHERE (run_id, balance_key) = (7, :key)"
                    ),
                    {"key": balance_key},
                )
    migrate(books.engine)
    assert (7, "2026-01-06", 17) in keys_of(books, "counted")
    assert books.rows("SELECT * FROM ledger_eod.chain_differences ORDER BY balance_key") == [
        (6, 6, 0, 2000, 0, 0), (6, 7, 2000, 0, 0, 0),
    ]  # fmt: skip


# 0007 on a history that is written by hand ----------------------------------------------------------------------------

RUNS = """
    run  kind     date        base  status     zone           opens             closes            cut
    1    close    2026-01-01  -     certified  UTC            2026-01-01 00:00  2026-01-02 00:00  100:100:
    2    interim  2026-01-02  1     certified  UTC            2026-01-02 00:00  2026-01-02 12:00  110:112:110
    3    close    2026-01-02  1     certified  UTC            2026-01-02 00:00  2026-01-03 00:00  120:125:121
    4    close    2026-01-03  3     abandoned  Europe/Berlin  2026-01-03 00:00  2026-01-03 23:00  130:130:
    5    close    2026-01-03  3     certified  Europe/Berlin  2026-01-03 00:00  2026-01-03 23:00  140:140:
    6    interim  2026-01-05  5     certified  Europe/Berlin  2026-01-04 23:00  2026-01-05 12:00  150:150:
    7    close    2026-01-04  5     open       Europe/Berlin  2026-01-03 23:00  2026-01-04 23:00  160:160:
"""

ROWS = """
    key  recorded  effective         status    parent
    1    -         2026-01-01 09:00  APPLIED   -
    2    99        2025-12-30 09:00  APPLIED   -
    3    99        2026-01-20 09:00  APPLIED   -
    4    105       2026-01-01 10:00  APPLIED   -
    5    105       2026-01-02 09:00  APPLIED   -
    6    105       2026-01-02 13:00  APPLIED   -
    7    110       2026-01-02 09:00  APPLIED   -
    8    121       2026-01-02 08:00  APPLIED   -
    9    122       2026-02-01 00:00  QUEUED    -
    10   135       2025-12-20 12:00  APPLIED   -
    11   135       2015-01-01 00:00  APPLIED   -
    12   135       2025-12-31 23:30  APPLIED   -
    13   135       2026-01-03 23:30  APPLIED   -
    14   136       2026-01-02 10:00  INFLIGHT  -
    15   136       2026-01-03 10:00  APPLIED   txn_14
    16   145       2026-01-04 12:00  APPLIED   -
    17   145       2026-01-04 23:00  APPLIED   -
    18   155       2026-01-04 10:00  APPLIED   -
    19   145       2026-01-03 12:00  APPLIED   -
"""

COUNTED = """
    run  date        keys          why
    1    2026-01-01  1 2           a first close dates everything on its own date
    2    2026-01-01  4             late for an interim run too
    2    2026-01-02  5             7 was being recorded while it took its cut, 6 is effective after its end
    3    2026-01-01  4             late
    3    2026-01-02  5 6 7 9       9 never counts: it is settled as soon as it is seen
    5    2016-01-04  11            3,650 days before the first close
    5    2025-12-20  10            by the calendar
    5    2025-12-31  12            not the first close's date, whose interval is stored
    5    2026-01-02  8 14          8 was being recorded while run 3 took its cut
    5    2026-01-03  15            the date of the close
    6    2026-01-03  19            late, and no close has seen it yet
    6    2026-01-04  13 16         an interim run that is a day ahead of the closes dates by its calendar
    6    2026-01-05  17            18 came after its cut
"""

PENDING = {1: {3}, 2: {3, 6}, 3: {3}, 5: {3, 13}, 6: {3}}


def write_history(books: Books) -> None:
    """The runs and rows above in place of the fixture's; each row moves 1.00 from balance 1 to balance 2.

    Balance 3 was committed behind run 1, which covers its key; balance 4 is gone since then.
    """
    with books.engine.begin() as connection:

        def put(statement: str, **parameters: Any) -> None:
            connection.execute(text(statement), parameters)

        put("SET LOCAL session_replication_role = replica")
        for table in ("runs", "activity", "run_exceptions", "run_totals", "row_checksums", "balance_snapshots"):
            put(f"DELETE FROM ledger_eod.{table}")
        put("DELETE FROM blnk.transactions")
        put("DELETE FROM blnk.balances WHERE id > 3")
        for run in read_table(RUNS):
            put(
                "INSERT INTO ledger_eod.runs (run_id, kind, business_date, status, time_zone, cut_off, opens_at, "
                "closes_at, cut, system_identifier, base_run_id, genesis_run_id, max_balance_key, snapshot_count) "
                "SELECT :run, CAST(:kind AS ledger_eod.run_kind), CAST(:date AS date), "
                "CAST(:status AS ledger_eod.run_status), :zone, '00:00', CAST(:opens AS timestamptz), "
                "CAST(:closes AS timestamptz), CAST(:cut AS pg_snapshot), CAST(system_identifier AS text), :base, "
                "1, 4, 3 FROM pg_control_system()",
                **{"base": None, **run},
            )  # fmt: skip
        for row in read_table(ROWS):
            put(
                "INSERT INTO blnk.transactions (id, transaction_id, source, destination, precise_amount, status, "
                "effective_date, parent_transaction, recorded_xid) SELECT CAST(:key AS bigint), 'txn_' || :key, "
                "giver.balance_id, taker.balance_id, 100, :status, CAST(:effective AS timestamp), :parent, "
                "CAST(CAST(:recorded AS text) AS xid8) FROM blnk.balances AS giver, blnk.balances AS taker "
                "WHERE giver.id = 1 AND taker.id = 2",
                **{"recorded": None, "parent": None, **row},
            )  # fmt: skip
        for run_id, day, kind, third_key in (
            (1, "2026-01-01", "close", 4), (2, "2026-01-02", "interim", 3), (3, "2026-01-02", "close", 3),
            (5, "2026-01-03", "close", 3),
        ):  # fmt: skip
            for balance_key, credit, debit in ((1, 0, 1100), (2, 1100, 0), (third_key, 0, 0)):
                put(
                    "INSERT INTO ledger_eod.balance_snapshots (run_id, balance_key, business_date, kind, "
                    "credit_balance, debit_balance, inflight_credit_balance, inflight_debit_balance) VALUES "
                    "(:run, :key, CAST(:day AS date), CAST(:kind AS ledger_eod.run_kind), :credit, :debit, 0, 0)",
                    run=run_id, key=balance_key, day=day, kind=kind, credit=credit, debit=debit,
                )  # fmt: skip


def test_each_run_gets_the_keys_it_counted_for_the_dates_it_had_them_on(empty_database: Ledger) -> None:
    books = restored(empty_database, "0006")
    write_history(books)
    migrate(books.engine)
    assert keys_of(books, "counted") == [
        (int(row["run"]), row["date"], int(key)) for row in read_table(COUNTED) for key in row["keys"].split()
    ]
    assert {(run, key) for run, _, key in keys_of(books, "pending")} == {
        (run, key) for run, keys in PENDING.items() for key in keys
    }
    # the newest close's snapshots say 11.00, as 11 rows that it and those before it counted, and the hold is released
    assert books.rows("SELECT * FROM ledger_eod.chain_differences") == []


@pytest.mark.parametrize(("run_id", "count"), [(1, 2), (2, 4), (3, 6), (5, 11), (6, 15)])
def test_what_a_run_knew_is_the_sum_of_what_it_and_its_chain_counted(
    empty_database: Ledger, run_id: int, count: int
) -> None:
    """Of interim runs, 2 and 6, as of closes; ``count``: the rows that had moved 1.00. Of figures only 5 has some."""
    books = restored(empty_database, "0006")
    write_history(books)
    migrate(books.engine)
    with books.engine.connect() as connection:
        at = f"{find_run(connection, run_id).closes_at}"
    amount = str(100 * count)
    wanted = {"bln_wallet": {at: ["0", amount, "0", "0"]}, "bln_purse": {at: [amount, "0", "0", "0"]}}
    assert answers(books, wanted, known_at=run_id, from_source=True) == wanted


def test_a_child_released_its_hold_in_the_run_that_counted_it(empty_database: Ledger) -> None:
    books = restored(empty_database, "0006")
    write_history(books)
    migrate(books.engine)
    assert keys_of(books, "released") == [(5, "2026-01-03", 15)]
    assert keys_of(books, "settling") == [(5, "2026-01-03", 15)]
    assert keys_of(books, "waiting") == []


def test_each_run_gets_the_highest_key_that_it_saw(empty_database: Ledger) -> None:
    books = restored(empty_database, "0006")
    write_history(books)
    books.execute("SET LOCAL session_replication_role = replica; DELETE FROM blnk.transactions WHERE id <= 3")
    migrate(books.engine)
    nothing = -(2**63)
    assert books.rows("SELECT run_id, max_transaction_key FROM ledger_eod.runs ORDER BY 1") == [
        (1, nothing), (2, 6), (3, 9), (4, 9), (5, 15), (6, 19), (7, 19),
    ]  # fmt: skip


def test_the_cluster_begins_with_the_keys_that_its_first_run_saw(empty_database: Ledger) -> None:
    books = restored(empty_database, "0006")
    write_history(books)
    migrate(books.engine)
    assert books.rows(
        "SELECT cluster_id, CAST(cut AS text), max_transaction_key, CAST(keys AS text) "
        "FROM ledger_eod.clusters JOIN ledger_eod.cluster_keys USING (cluster_id)"
    ) == [(1, "100:100:", 3, "{[1,4)}")]
    assert books.rows("SELECT nextval(pg_get_serial_sequence('ledger_eod.clusters', 'cluster_id'))") == [(2,)]


def test_balances_are_captured_by_the_first_run_with_a_snapshot_of_them(empty_database: Ledger) -> None:
    books = restored(empty_database, "0006")
    write_history(books)
    migrate(books.engine)
    assert books.rows("SELECT * FROM ledger_eod.captured_balances ORDER BY balance_key") == [
        (1, "bln_wallet", "USD", 1, None), (2, "bln_purse", "USD", 1, None), (3, "bln_shop", "USD", 2, None),
        (4, "deleted:4", "", 1, None),
    ]  # fmt: skip


def test_a_copy_closed_nothing_since_is_told_by_the_old_clusters_ids(empty_database: Ledger) -> None:
    books = restored(empty_database, "0006")
    write_history(books)
    books.execute(
        "SET LOCAL session_replication_role = replica; UPDATE ledger_eod.runs SET system_identifier = 'elsewhere'"
    )
    migrate(books.engine)
    assert (
        len(keys_of(books, "counted")) == len({key for row in read_table(COUNTED) for key in row["keys"].split()}) + 2
    )
    assert books.rows("SELECT count(*) FROM ledger_eod.cluster_keys") == [(0,)]


def test_a_copy_with_only_an_interim_run_cannot_tell_its_chain(empty_database: Ledger) -> None:
    """Its ids were forgotten when that run was opened: the difference is everything."""
    books = restored(empty_database, "0006")
    write_history(books)
    books.execute(
        "SET LOCAL session_replication_role = replica; UPDATE blnk.transactions SET recorded_xid = NULL; "
        "UPDATE ledger_eod.runs SET system_identifier = 'elsewhere' WHERE run_id <= 5; "
        "UPDATE ledger_eod.runs SET base_run_id = NULL, genesis_run_id = 6 WHERE run_id = 6; "
        "DELETE FROM ledger_eod.runs WHERE run_id = 7"
    )
    migrate(books.engine)
    assert {run for run, _, _ in keys_of(books, "counted")} == {6}
    assert books.rows("SELECT * FROM ledger_eod.chain_differences ORDER BY balance_key") == [
        (1, 1, 0, 1100, 0, 0), (1, 2, 1100, 0, 0, 0),
    ]  # fmt: skip


def test_legacy_rates_and_rows_without_a_whole_amount_are_proved_as_they_were_counted(empty_database: Ledger) -> None:
    books = restored(empty_database, "0006")
    write_history(books)
    books.execute(
        "SET LOCAL session_replication_role = replica; ALTER TABLE blnk.transactions ADD COLUMN rate double precision; "
        "UPDATE blnk.transactions SET rate = 2 WHERE id = 1; UPDATE blnk.transactions SET rate = 'NaN' WHERE id = 2; "
        "UPDATE blnk.transactions SET precise_amount = 2.5 WHERE id = 4; "
        "UPDATE blnk.transactions SET precise_amount = NULL WHERE id = 5"
    )
    migrate(books.engine)
    # the giver: 2, 4 and 5 count zero; the taker: the same, and 1 counts twice
    assert books.rows("SELECT * FROM ledger_eod.chain_differences ORDER BY balance_key") == [
        (1, 1, 0, 300, 0, 0), (1, 2, 200, 0, 0, 0),
    ]  # fmt: skip


def test_old_closes_are_digested_anew_by_one_command(empty_database: Ledger) -> None:
    books = upgraded(empty_database, "0006")
    checked = verify(books, "checksums")
    old = [run_id for (run_id,) in books.rows("SELECT DISTINCT run_id FROM ledger_eod.row_checksums ORDER BY 1")]
    with books.engine.connect() as connection:
        to_digest = old_closes(connection)
    assert to_digest
    assert set(to_digest) <= set(old)
    first = digest_old_closes(books.engine)
    with books.engine.connect() as connection:
        assert old_closes(connection) == []
    assert [run.run_id for run in first.pop(Fate.digested)] == to_digest
    assert books.rows("SELECT DISTINCT run_id FROM ledger_eod.later_digests ORDER BY 1") == [
        (run_id,) for run_id in to_digest
    ]
    assert set(first) == {Fate.unknown_rows}
    again = digest_old_closes(books.engine)
    assert Fate.digested not in again
    assert {run.run_id for run in again[Fate.digested_before]} == set(to_digest)
    assert [each.evidence for each in verify(books, "checksums").found] == [each.evidence for each in checked.found]
    # an edit that says the same to a sum of postings is named from now on, as on later closes
    ((key, day),) = books.rows(
        "SELECT t.id, k.effective_date FROM ledger_eod.later_digests AS d JOIN ledger_eod.run_keys AS k "
        "ON k.run_id = d.run_id AND k.key_set = 'counted' AND k.effective_date = d.effective_date "
        "JOIN blnk.transactions AS t ON k.keys @> CAST(t.id AS bigint) ORDER BY t.id LIMIT 1"
    )
    unguarded(books, "blnk.transactions", f"UPDATE blnk.transactions SET reference = 'x' WHERE id = {key}")
    found = verify(books, "checksums").found
    assert day in {each.business_date for each in found if each.cause == "row_edited_or_removed"}
    with pytest.raises(DBAPIError, match="it is evidence"):
        books.execute("UPDATE ledger_eod.later_digests SET digest = ''")
    with pytest.raises(DBAPIError, match="it is evidence"):
        books.execute("DELETE FROM ledger_eod.later_digests")


def test_an_old_close_whose_rows_were_changed_is_not_digested_anew(empty_database: Ledger) -> None:
    books = upgraded(empty_database, "0006")
    ((run_id, key),) = books.rows(
        "SELECT k.run_id, t.id FROM ledger_eod.run_keys AS k JOIN ledger_eod.row_checksums AS c "
        "ON c.run_id = k.run_id AND c.effective_date = k.effective_date "
        "JOIN blnk.transactions AS t ON k.keys @> CAST(t.id AS bigint) AND t.status = 'APPLIED' "
        "WHERE k.key_set = 'counted' ORDER BY t.id LIMIT 1"
    )
    unguarded(books, "blnk.transactions", f"UPDATE blnk.transactions SET reference = 'x' WHERE id = {key}")
    found = digest_old_closes(books.engine)
    assert [run.run_id for run in found[Fate.differs]] == [run_id]
    assert books.rows("SELECT count(*) FROM ledger_eod.later_digests WHERE run_id = :run", run=run_id) == [(0,)]


#: The subjects of digests that came after migration 0012.
LATER = "('balances since the base', 'chain differences', 'cluster', 'run', 'samples')"

#: The digest of rows as closes stored it before migration 0012, of a part of at most 1,024 keys.
ROW_TEXT_DIGEST = """
UPDATE ledger_eod.row_digests AS stored SET digest = (
    SELECT encode(sha256(sha256(convert_to(string_agg(CAST(row(
        t.id, t.transaction_id, t.source, t.destination, t.reference, trim_scale(t.amount),
        trim_scale(t.precise_amount), t.precision, t.currency, t.status, t.parent_transaction,
        EXTRACT(EPOCH FROM t.created_at), EXTRACT(EPOCH FROM COALESCE(t.effective_date, t.created_at))
    ) AS text), '' ORDER BY t.id), 'UTF8'))), 'hex')
    FROM ledger_eod.run_keys AS counted
    JOIN blnk.transactions AS t ON counted.block = t.id >> 13 AND counted.keys @> CAST(t.id AS bigint)
    WHERE counted.run_id = stored.run_id AND counted.key_set = 'counted'
)
"""


def test_digests_of_rows_are_made_anew_where_the_rows_are_the_same(ledger: Ledger) -> None:
    books = Books(ledger)
    for day, reference in (("2026-01-29", "kept"), ("2026-01-30", "edited")):
        books.post(f"""
            recorded      source  destination  amount    reference
            {day} 09:00   @world  wallet       1.00 USD  {reference}
        """)
        books.close_day(day)
    made = books.rows("SELECT run_id, digest FROM ledger_eod.row_digests ORDER BY run_id")
    books.execute("ALTER TABLE ledger_eod.row_digests DISABLE TRIGGER USER")
    assert books.execute(ROW_TEXT_DIGEST) == 2
    books.execute("ALTER TABLE ledger_eod.row_digests ENABLE TRIGGER USER")
    unguarded(
        books,
        "blnk.transactions",
        "UPDATE blnk.transactions SET created_at = '2026-01-30 09:01' WHERE reference = 'edited'",
    )
    unguarded(
        books, "ledger_eod.figure_digests", f"DELETE FROM ledger_eod.figure_digests WHERE subject IN {LATER}", rows=5
    )
    for undone in (  # what came after migration 0012
        "DROP TABLE ledger_eod.prepared_parts, ledger_eod.prepared_balances, ledger_eod.later_digests",
        "ALTER TABLE ledger_eod.run_pieces DROP COLUMN fingerprint",
        "ALTER TABLE ledger_eod.runs DROP COLUMN pending_from_run_id",
        "ALTER TABLE ledger_eod.clusters DROP COLUMN transactions_oid",
        "DROP TABLE ledger_eod.first_closes",
        "ALTER FUNCTION ledger_eod.refuse_certified_removal() RENAME TO replaced",
        "UPDATE ledger_eod.schema_version SET version_num = '0011'",
    ):
        books.execute(undone)
    migrate(ledger.engine)
    digests = books.rows("SELECT run_id, digest FROM ledger_eod.row_digests ORDER BY run_id")
    assert digests[0] == made[0]
    assert digests[1] != made[1]
    assert {each.business_date for each in verify(books, "checksums").found} == {date(2026, 1, 30)}
    with pytest.raises(DBAPIError, match="it is evidence"):
        books.execute("UPDATE ledger_eod.row_digests SET digest = ''")


def test_what_later_versions_cover_is_digested_as_it_is_found(ledger: Ledger) -> None:
    books = Books(ledger)
    books.open("wallet")
    first = books.open_day("2026-01-29")
    unguarded(books, "ledger_eod.clusters", "UPDATE ledger_eod.clusters SET transactions_oid = NULL")
    books.finish(first)
    books.open("visitor")
    with books.engine.begin() as connection:
        abandon_run(connection, books.open_day("2026-01-30").run_id)
    run = books.close_day("2026-01-30")
    ours = f"FROM ledger_eod.figure_digests WHERE subject IN {LATER}"
    query = f"SELECT run_id, subject, digest {ours} ORDER BY run_id, subject"
    made = books.rows(query)
    assert [(run_id, subject) for run_id, subject, _ in made] == [
        (1, "cluster"), (1, "run"), (run.run_id, "balances since the base"), (run.run_id, "run"),
    ]  # fmt: skip
    unguarded(books, "ledger_eod.figure_digests", f"DELETE {ours}", rows=len(made))
    books.execute("ALTER TABLE ledger_eod.runs DROP COLUMN pending_from_run_id")
    books.execute("ALTER TABLE ledger_eod.clusters DROP COLUMN transactions_oid")
    books.execute("DROP TABLE ledger_eod.first_closes")
    books.execute("UPDATE ledger_eod.schema_version SET version_num = '0014'")
    migrate(ledger.engine)
    assert books.rows(query) == made
    with pytest.raises(DBAPIError, match="takes no more rows"):
        books.execute(f"INSERT INTO ledger_eod.figure_digests SELECT run_id, 'another', digest {ours} LIMIT 1")
