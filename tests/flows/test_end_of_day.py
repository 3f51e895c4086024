"""The nightly flow: every date that has ended and is not closed, in order."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from typing import Any

import pytest
from prefect.client.schemas.objects import State

from flows.end_of_day import EndOfDayResult, end_of_day
from ledger_db.close.runs import hold_run
from ledger_db.settings import get_settings
from tests.testing.books import Books
from tests.testing.clusters import pretend_restored
from tests.testing.flow_runs import Heard, artifact, leave_rows_alone, listening, name_of, on_each_row
from tests.testing.oracle import assert_proved

pytestmark = pytest.mark.usefixtures("prefect_api_url")

FIRST, SECOND, THIRD = date(2025, 1, 29), date(2025, 1, 30), date(2025, 1, 31)


@pytest.fixture
def heard() -> Iterator[Heard]:
    with listening() as records:
        yield records


@pytest.fixture
def three_days(books: Books) -> Books:
    books.post("""
        recorded          source  destination  amount
        2025-01-29 09:00  @world  wallet       1.00 USD
        2025-01-30 09:00  @world  wallet       2.00 USD
        2025-01-31 09:00  @world  wallet       4.00 USD
    """)
    return books


def night(since: date | None = None, until: date | None = THIRD, **parameters: Any) -> State[Any]:
    return end_of_day(since=since, until=until, return_state=True, **parameters)


def closed(books: Books) -> list[tuple[Any, ...]]:
    return books.rows(
        "SELECT business_date, status::text, (SELECT balance FROM ledger_eod.daily_balances AS d "
        "WHERE d.run_id = runs.run_id AND balance_id = 'bln_wallet') FROM ledger_eod.runs ORDER BY run_id"
    )


def test_missed_nights_are_closed_in_order(three_days: Books, heard: Heard) -> None:
    state = night(since=FIRST)
    result = state.result()
    assert isinstance(result, EndOfDayResult)
    assert result.dates == [FIRST, SECOND, THIRD]
    assert closed(three_days) == [(FIRST, "certified", 100), (SECOND, "certified", 300), (THIRD, "certified", 700)]
    assert all(certificate.run.caught_up for certificate in result.certificates)
    assert name_of(state) == "end-of-day-2025-01-31"
    for certificate in result.certificates:
        assert_proved(three_days, certificate.run)
    (line,) = heard.job_lines("end_of_day")
    assert (line["status"], line["dates"], line["late_postings"]) == (
        "completed", ["2025-01-29", "2025-01-30", "2025-01-31"], 0,
    )  # fmt: skip
    assert [line["status"] for line in heard.job_lines("balance_snapshots")] == ["started", "completed"] * 3
    assert artifact("late-arrivals-2025-01-31", state) == [{"closed": "nothing arrived late"}]


def test_a_second_night_with_nothing_to_do_writes_nothing(three_days: Books) -> None:
    night(since=FIRST)
    before = three_days.rows("SELECT * FROM ledger_eod.runs ORDER BY 1")
    result = night().result()
    assert result == EndOfDayResult([])
    assert three_days.rows("SELECT * FROM ledger_eod.runs ORDER BY 1") == before


@pytest.mark.parametrize("restored", [False, True])
def test_late_arrivals_are_told(three_days: Books, heard: Heard, restored: bool) -> None:
    night(since=FIRST, until=SECOND)
    if restored:
        pretend_restored(three_days)
    three_days.post("""
        recorded          effective         source  destination  amount
        2025-01-31 08:00  2025-01-20 00:00  wallet  @world       0.25 USD
        2025-01-31 08:00  2025-01-29 12:00  @world  wallet       8.00 USD
    """)
    three_days.post("""
        recorded          effective         source  destination  amount    status
        2025-01-31 08:00  2025-01-28 12:00  wallet  shop         9.00 USD  INFLIGHT
    """)
    state = night()
    assert state.result().dates == [THIRD]
    assert heard.job_lines("end_of_day")[-1]["late_postings"] == 6
    total, *rows = artifact("late-arrivals-2025-01-31", state)
    assert total == {
        "closed": "2025-01-31", "balance": "all 3 balances", "business date": "total", "currency": "USD",
        "postings": 6, "credits": "825", "debits": "825", "effect": "0",
        "inflight credits": "900", "inflight debits": "900", "inflight effect": "0",
    }  # fmt: skip
    assert [(row["balance"], row["business date"], row["effect"], row["inflight effect"]) for row in rows] == [
        ("bln_wallet", "2025-01-28", "0", "-900"), ("bln_shop", "2025-01-28", "0", "900"),
        ("bln_world_usd", "2025-01-29", "-800", "0"), ("bln_wallet", "2025-01-29", "800", "0"),
        ("bln_world_usd", "2025-01-20", "25", "0"), ("bln_wallet", "2025-01-20", "-25", "0"),
    ]  # fmt: skip


def test_the_first_night_of_a_ledger_closes_the_last_day_that_ended(books: Books) -> None:
    books.open("wallet")
    result = night(until=None).result()
    (day,) = result.dates
    assert day in {datetime.now(UTC).date() - timedelta(days=days) for days in (1, 2)}  # midnight may pass meanwhile
    assert not result.certificates[0].run.caught_up


def test_a_night_that_fails_in_the_middle_keeps_what_was_closed_and_goes_on_from_there(three_days: Books) -> None:
    on_each_row(three_days, "IF NEW.business_date = '2025-01-30' THEN RAISE EXCEPTION 'poisoned'; END IF;")
    state = night(since=FIRST, batch_size=1)
    assert state.is_failed()
    assert str(state.message).startswith("2025-01-30 is not closed: 2 of 2 tasks failed")
    assert "balance keys 1–1: poisoned" in str(state.message)
    assert [row[:2] for row in closed(three_days)] == [(FIRST, "certified"), (SECOND, "open")]
    leave_rows_alone(three_days)
    assert night().result().dates == [SECOND, THIRD]
    assert closed(three_days) == [(FIRST, "certified", 100), (SECOND, "certified", 300), (THIRD, "certified", 700)]


def test_a_first_night_that_failed_is_finished_by_the_next(three_days: Books) -> None:
    """With no certified close yet and no date asked for, the open close comes first."""
    three_days.open_day("2025-01-29")
    assert night().result().dates == [FIRST, SECOND, THIRD]


def test_a_night_is_skipped_while_another_process_is_at_it(three_days: Books) -> None:
    run = three_days.open_day("2025-01-31")
    with hold_run(three_days.engine, run.run_id) as mine:
        assert mine
        state = night()
    assert (state.name, state.is_completed()) == ("AtWork", True)
    assert f"another process is at work on close 2025-01-31 (run {run.run_id})" in str(state.message)
    assert closed(three_days) == [(THIRD, "open", None)]


def test_dates_that_would_leave_a_gap_are_refused_in_one_clear_line(three_days: Books, heard: Heard) -> None:
    night(since=FIRST, until=FIRST)
    state = night(since=THIRD)
    assert state.is_failed()
    assert state.message == "closes follow one another: 2025-01-30 comes before 2025-01-31"
    assert night(until=date(2999, 1, 1)).message is not None
    assert "Traceback" not in heard.text
    assert [row[0] for row in closed(three_days)] == [FIRST]


def test_a_wrong_setting_fails_in_one_clear_line(three_days: Books, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LEDGER_TIME_ZONE", "Middle/Earth")
    get_settings.cache_clear()
    state = night()
    assert state.is_failed()
    assert "LEDGER_TIME_ZONE" in str(state.message)
    assert "Middle/Earth" in str(state.message)


def test_the_configured_calendar_decides_the_boundaries(three_days: Books, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LEDGER_TIME_ZONE", "Europe/Berlin")
    monkeypatch.setenv("LEDGER_CUT_OFF", "10:00")  # 09:00 UTC: exactly when the postings are effective
    get_settings.cache_clear()
    night(since=FIRST)
    assert closed(three_days) == [(FIRST, "certified", 100), (SECOND, "certified", 300), (THIRD, "certified", 700)]
    ((opens_at, closes_at),) = three_days.rows(
        "SELECT opens_at, closes_at FROM ledger_eod.runs WHERE business_date = '2025-01-30'"
    )
    assert (opens_at, closes_at) == (
        datetime(2025, 1, 30, 9, tzinfo=UTC), datetime(2025, 1, 31, 9, tzinfo=UTC),
    )  # fmt: skip


def test_a_fact_of_the_ledger_is_not_retried_even_where_retries_are_set(three_days: Books) -> None:
    night(since=FIRST, until=FIRST)
    state = end_of_day.with_options(retries=2, retry_delay_seconds=300)(since=THIRD, return_state=True)
    assert (state.is_final(), state.is_failed()) == (True, True)
