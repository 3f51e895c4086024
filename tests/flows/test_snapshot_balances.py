"""The flow that snapshots one business date, on a real Prefect server and a real ledger."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, date, datetime
from typing import Any

import pytest
from prefect.client.schemas.objects import State

from flows.parts.hints import with_hint
from flows.snapshot_balances import SnapshotResult, snapshot_balances
from ledger_db.close.runs import hold_run
from ledger_db.errors import Hint
from ledger_db.server.connections import dispose_engines
from ledger_db.settings import get_settings
from tasks import close as closing
from tests.testing import PROJECT
from tests.testing.books import Books, Ledger
from tests.testing.flow_runs import Heard, artifact, attempts, leave_rows_alone, listening, name_of, on_each_row
from tests.testing.oracle import assert_proved

pytestmark = pytest.mark.usefixtures("prefect_api_url")

DAY = date(2025, 1, 31)
POISON = "IF NEW.balance_key = 5 THEN RAISE EXCEPTION 'poisoned'; END IF;"


@pytest.fixture
def heard() -> Iterator[Heard]:
    with listening() as records:
        yield records


@pytest.fixture
def ten(books: Books) -> Books:
    """Ten balances, 100.00 on the first, and a hold."""
    rows = [f"2025-01-31 09:00  @world  w{n}  {n}.00 USD  APPLIED" for n in range(1, 9)]
    rows += ["2025-01-31 09:00  @world  purse  5.00 EUR  APPLIED", "2025-01-31 10:00  w8  w1  2.00 USD  INFLIGHT"]
    books.post("\n".join(["recorded  source  destination  amount  status", *rows]))
    return books


@pytest.fixture(autouse=True)
def quick_retries(monkeypatch: pytest.MonkeyPatch) -> None:
    """The same number of retries, without the waiting."""
    for each in (closing.write_snapshots, closing.certify_run, closing.count_pieces, closing.open_run):
        monkeypatch.setattr(each, "retry_delay_seconds", [0.0])
        monkeypatch.setattr(each, "retry_jitter_factor", None)


def snapshot(day: date | None = DAY, **parameters: Any) -> State[Any]:
    return snapshot_balances(day, return_state=True, **parameters)


def test_a_close_is_certified_reported_and_named_by_its_date(ten: Books, heard: Heard) -> None:
    state = snapshot(batch_size=4)
    result = state.result()
    assert isinstance(result, SnapshotResult)
    run = result.certificate.run
    assert (run.certified, run.business_date, run.kind, run.caught_up) == (True, DAY, "close", True)
    assert (result.written, run.snapshot_count) == (11, 11)
    assert_proved(ten, run)
    assert name_of(state) == "snapshot-balances-2025-01-31"

    started, completed = heard.job_lines("balance_snapshots")
    assert started["message"] == "balance snapshots started"
    assert {"operation", "batch_size", "status", "timestamp"} <= started.keys()
    assert (started["status"], started["batch_size"]) == ("started", 4)
    assert completed["message"] == "balance snapshots completed"
    assert {
        "operation", "batch_size", "status", "total_snapshots", "duration_ms", "snapshots_per_second", "timestamp",
    } <= completed.keys()  # fmt: skip
    assert (completed["status"], completed["total_snapshots"], completed["checksum"]) == ("completed", 11, run.checksum)
    assert datetime.fromisoformat(completed["timestamp"]).tzinfo is not None

    assert artifact("totals-close-2025-01-31", state) == [
        {"currency": "EUR", "balances": 2, "credits": "500", "debits": "500", "difference": "0", "itemised": "0",
         "inflight credits": "0", "inflight debits": "0"},
        {"currency": "USD", "balances": 9, "credits": "3600", "debits": "3600", "difference": "0", "itemised": "0",
         "inflight credits": "200", "inflight debits": "200"},
    ]  # fmt: skip
    for progress in ("progress-rows-close-2025-01-31", "progress-close-2025-01-31"):
        assert artifact(progress, state) == 100.0


def test_a_certified_date_is_skipped_and_nothing_is_written(ten: Books) -> None:
    first = snapshot().result()
    before = ten.rows("SELECT xmin::text, * FROM ledger_eod.balance_snapshots ORDER BY balance_key")
    again = snapshot()
    assert (again.name, again.type.value) == ("NothingToDo", "COMPLETED")
    assert again.message == (
        f"close 2025-01-31 (run {first.certificate.run.run_id}) is certified already: 11 snapshots, "
        f"{first.certificate.run.checksum}"
    )
    assert ten.rows("SELECT xmin::text, * FROM ledger_eod.balance_snapshots ORDER BY balance_key") == before


def test_a_run_that_is_held_elsewhere_is_skipped(ten: Books) -> None:
    run = ten.open_day("2025-01-31")
    with hold_run(ten.engine, run.run_id) as mine:
        assert mine
        state = snapshot()
    assert (state.name, state.message) == (
        "AtWork",
        f"another process is at work on close 2025-01-31 (run {run.run_id})",
    )
    assert ten.rows("SELECT count(*) FROM ledger_eod.activity") == [(0,)]
    assert snapshot().result().certificate.run.run_id == run.run_id


def test_two_flow_runs_at_once_write_each_balance_once(ten: Books) -> None:
    on_each_row(ten, "PERFORM pg_sleep(0.1);")
    with ThreadPoolExecutor(2) as pool:
        states = list(pool.map(lambda _: snapshot(batch_size=3), range(2)))
    assert all(state.is_completed() for state in states)
    (skipped,) = [state for state in states if state.name != "Completed"]
    assert skipped.name in ("AtWork", "NothingToDo")
    assert "another process is at work on" in str(skipped.message) or "is certified already" in str(skipped.message)
    assert ten.rows("SELECT count(*), count(DISTINCT balance_key) FROM ledger_eod.balance_snapshots") == [(11, 11)]
    assert ten.rows("SELECT count(*) FROM ledger_eod.runs") == [(1,)]


def test_one_bad_batch_fails_the_flow_run_names_the_range_and_keeps_the_others(ten: Books, heard: Heard) -> None:
    on_each_row(ten, f"PERFORM nextval('public.attempts'); {POISON}")
    state = snapshot(batch_size=3)
    assert state.is_failed()
    assert state.message == (
        "1 of 4 tasks failed, the others' snapshots are kept; run it again to write the missing ones. "
        "run 1 could not write balance keys 4–6: poisoned"
    )
    kept = (
        "SELECT balance_key, xmin::text FROM ledger_eod.balance_snapshots WHERE balance_key NOT IN (4, 5, 6) ORDER BY 1"
    )
    before = ten.rows(kept)
    assert [key for key, _ in before] == [1, 2, 3, 7, 8, 9, 10, 11]
    assert ten.rows("SELECT status::text, checksum FROM ledger_eod.runs") == [("open", None)]
    assert attempts(ten) == 8 + 2  # the poisoned row was tried once: only what is transient is tried again
    failed = heard.job_lines("balance_snapshots")[-1]
    assert (failed["message"], failed["status"], failed["total_snapshots"]) == ("balance snapshots failed", "failed", 8)
    assert "balance keys 4–6: poisoned" in failed["error"]

    leave_rows_alone(ten)
    result = snapshot(batch_size=3).result()
    assert (result.certificate.run.run_id, result.written) == (1, 3)
    assert ten.rows(kept) == before
    assert_proved(ten, result.certificate.run)


def test_one_piece_that_fails_for_good_keeps_the_others_and_the_next_flow_run_counts_it(
    ten: Books, heard: Heard, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LEDGER_PIECE_SIZE", "2")
    get_settings.cache_clear()
    ten.execute("CREATE SEQUENCE public.attempts")
    ten.execute(
        "CREATE FUNCTION public.poison() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN IF NEW.piece = 3 THEN "
        "PERFORM nextval('public.attempts'); RAISE EXCEPTION 'poisoned'; END IF; RETURN NEW; END $$"
    )
    ten.execute("CREATE TRIGGER poison BEFORE INSERT ON ledger_eod.row_digests FOR EACH ROW EXECUTE FUNCTION poison()")
    state = snapshot()
    assert state.is_failed()
    assert state.message == (
        "1 of 6 tasks failed, the other pieces are kept; run it again to count the missing ones. "
        "run 1 could not count piece 3 (new, keys 4–5): poisoned"
    )
    assert attempts(ten) == 1  # only what is transient is tried again
    assert "piece 3 (new, keys 4–5): poisoned" in heard.job_lines("balance_snapshots")[-1]["error"]
    assert ten.rows("SELECT status::text, collected_at FROM ledger_eod.runs") == [("open", None)]
    assert ten.rows("SELECT count(*) FROM ledger_eod.balance_snapshots") == [(0,)]
    kept = "SELECT piece, done_at, xmin::text FROM ledger_eod.run_pieces WHERE piece <> 3 ORDER BY piece"
    before = ten.rows(kept)
    assert [(piece, done_at is not None) for piece, done_at, _ in before] == [
        (1, True), (2, True), (4, True), (5, True), (6, True),
    ]  # fmt: skip
    assert ten.rows("SELECT done_at FROM ledger_eod.run_pieces WHERE piece = 3") == [(None,)]
    assert ten.rows("SELECT count(*) FROM ledger_eod.run_keys WHERE piece = 3") == [(0,)]

    ten.execute("DROP TRIGGER poison ON ledger_eod.row_digests")
    result = snapshot().result()
    assert (result.certificate.run.run_id, result.written) == (1, 11)
    assert ten.rows(kept) == before
    assert_proved(ten, result.certificate.run)


def test_a_transient_failure_is_tried_again_until_it_passes(ten: Books) -> None:
    on_each_row(ten, "IF nextval('public.attempts') <= 2 THEN RAISE EXCEPTION 'busy' USING ERRCODE = '40001'; END IF;")
    result = snapshot(batch_size=100).result()
    assert result.certificate.run.certified
    assert attempts(ten) == 2 + 11  # two attempts met it on their first row, the third wrote all


def test_a_transient_failure_that_lasts_is_given_up_after_its_retries(ten: Books) -> None:
    on_each_row(ten, "PERFORM nextval('public.attempts'); RAISE EXCEPTION 'busy' USING ERRCODE = '55P03';")
    state = snapshot(batch_size=100)
    assert state.is_failed()
    assert "run 1 could not write balance keys 1–11: busy" in str(state.message)
    assert attempts(ten) == 1 + 4
    leave_rows_alone(ten)
    assert snapshot().result().certificate.run.run_id == 1


def test_figures_that_do_not_prove_fail_the_flow_run_without_a_retry(ten: Books) -> None:
    snapshot(date(2025, 1, 30))
    ten.execute("ALTER TABLE ledger_eod.balance_snapshots DISABLE TRIGGER USER")
    ten.execute("UPDATE ledger_eod.balance_snapshots SET credit_balance = credit_balance + 7 WHERE balance_key = 2")
    ten.execute("ALTER TABLE ledger_eod.balance_snapshots ENABLE TRIGGER USER")
    state = snapshot()
    assert state.is_failed()
    assert "USD credit_balance: snapshots add up to 3607, base and activity to 3600, difference +7" in str(
        state.message
    )
    ((status, refusal),) = ten.rows(
        "SELECT status::text, refusal FROM ledger_eod.runs WHERE business_date = '2025-01-31'"
    )
    assert (status, with_hint(refusal, Hint.verify_checksums)) == ("open", state.message)


def test_interim_runs_are_named_skipped_when_there_is_nothing_new_and_capture_what_is(ten: Books) -> None:
    today = datetime.now(UTC).date()
    state = snapshot(None, kind="interim")
    result = state.result()
    assert (result.certificate.run.kind, result.written) == ("interim", 11)
    assert abs((result.certificate.run.business_date - today).days) <= 1  # midnight may pass meanwhile
    assert name_of(state) == f"snapshot-balances-interim-{result.certificate.run.business_date}"
    again = snapshot(result.certificate.run.business_date, kind="interim")
    assert (again.name, again.message) == ("NothingToDo", "every balance has its interim snapshot of this date already")
    ten.open("new")
    assert snapshot(result.certificate.run.business_date, kind="interim").result().written == 1


def test_a_date_that_has_not_ended_fails_in_one_clear_line(ten: Books, heard: Heard) -> None:
    state = snapshot(date(2999, 1, 1))
    assert state.is_failed()
    assert state.message == (
        "2999-01-01 has not ended: it closes at 2999-01-02T00:00:00+00:00; take an interim snapshot meanwhile"
    )
    assert "Traceback" not in heard.text
    assert ten.rows("SELECT count(*) FROM ledger_eod.runs") == [(0,)]


def test_a_database_without_the_schema_fails_in_one_clear_line(
    empty_database: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LEDGER_DATABASE_URL", empty_database.url.render_as_string(hide_password=False))
    get_settings.cache_clear()
    state = snapshot()
    assert state.is_failed()
    assert "the database's schema is at nothing" in str(state.message)
    assert re.search(r"needs \d{4}; migrate the database, or install the version that did$", str(state.message))
    dispose_engines()


def test_no_log_line_and_no_state_tells_the_password(ten: Books, heard: Heard, monkeypatch: pytest.MonkeyPatch) -> None:
    secret = ten.ledger.url.set(password="s3cr3t-pass")  # noqa: S106 - the test's server asks for none
    monkeypatch.setenv("LEDGER_DATABASE_URL", secret.render_as_string(hide_password=False))
    get_settings.cache_clear()
    on_each_row(ten, POISON)
    states = [snapshot(batch_size=3)]
    leave_rows_alone(ten)
    states.append(snapshot(batch_size=3))
    monkeypatch.setenv(
        "LEDGER_DATABASE_URL", secret.set(database="no_such_database").render_as_string(hide_password=False)
    )
    get_settings.cache_clear()
    states.append(snapshot())
    assert [state.is_completed() for state in states] == [False, True, False]
    assert "s3cr3t-pass" not in heard.text
    assert all("s3cr3t-pass" not in str(state.message) for state in states)
    assert heard.records


def test_a_worker_killed_in_the_middle_is_finished_by_the_next_flow_run(ten: Books, prefect_api_url: str) -> None:
    on_each_row(ten, "PERFORM pg_sleep(0.3);")
    environment = os.environ | {
        "PREFECT_API_URL": prefect_api_url,
        "LEDGER_DATABASE_URL": ten.ledger.url.render_as_string(hide_password=False),
        "LEDGER_WORKERS": "2",
    }
    code = (
        "from datetime import date; from flows.snapshot_balances import snapshot_balances; "
        "snapshot_balances(date(2025, 1, 31), 'close', 2)"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code], env=environment, cwd=PROJECT,
        stdout=subprocess.DEVNULL,
    ) as worker:  # fmt: skip
        deadline = time.monotonic() + 60
        while ten.rows("SELECT count(*) FROM ledger_eod.balance_snapshots") == [(0,)]:
            assert worker.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.02)
        worker.kill()
    leave_rows_alone(ten)
    ((run_id, cut, status),) = ten.rows("SELECT run_id, cut::text, status::text FROM ledger_eod.runs")
    assert status == "open"
    ((kept,),) = ten.rows("SELECT count(*) FROM ledger_eod.balance_snapshots")
    assert 0 < kept < 11
    while (state := snapshot(batch_size=2)).name == "AtWork":  # until the server has noticed
        assert time.monotonic() < deadline
        time.sleep(0.1)
    run = state.result().certificate.run
    assert (run.run_id, run.cut) == (run_id, cut)
    assert state.result().written <= 11 - kept
    assert_proved(ten, run)
