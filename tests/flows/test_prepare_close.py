"""The flow that counts the date in progress in advance, on a real Prefect server and a real ledger."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from flows.parts.outcomes import NOTHING_TO_DO
from flows.prepare_close import PreparationResult, prepare_close
from flows.snapshot_balances import SnapshotResult, snapshot_balances
from ledger_db.server.connections import dispose_engines
from tests.testing.books import Books, Ledger
from tests.testing.flow_runs import listening, name_of
from tests.testing.oracle import assert_proved

pytestmark = pytest.mark.usefixtures("prefect_api_url")


def today() -> datetime:
    return datetime.now(UTC)


@pytest.fixture
def in_progress(books: Books) -> Books:
    """Yesterday is closed, and today has two parts."""
    yesterday = today() - timedelta(days=1)
    books.post(f"""
        recorded                source  destination  amount
        {yesterday:%Y-%m-%d} 00:01  @world  wallet       1.00 USD
    """)
    books.close_day(f"{yesterday:%Y-%m-%d}")
    for amount in (2, 4):
        books.post(f"""
            recorded                source  destination  amount
            {today():%Y-%m-%d} 00:01  @world  wallet       {amount}.00 USD
        """)
        books.fill_part()
    return books


def test_counts_what_there_is_and_a_second_run_has_nothing_to_do(in_progress: Books) -> None:
    with listening() as heard:
        state = prepare_close(return_state=True)
    result = state.result()
    assert isinstance(result, PreparationResult)
    assert (result.business_date, result.piece_count) == (today().date(), 1)
    assert name_of(state) == f"prepare-close-{today():%Y-%m-%d}"
    started, completed = heard.job_lines("prepare_close")
    assert (started["status"], completed["status"], completed["pieces"]) == ("started", "completed", 1)
    again = prepare_close(return_state=True)
    assert (again.name, again.message) == (NOTHING_TO_DO, f"{today():%Y-%m-%d}: nothing new to count")
    # what it is for, and the close removes it
    run = in_progress.open_day(f"{today():%Y-%m-%d}")
    closed = snapshot_balances(run.business_date)
    assert isinstance(closed, SnapshotResult)
    assert in_progress.rows("SELECT work::text FROM ledger_eod.run_pieces WHERE run_id = :run", run=run.run_id) == [
        ("prepared",)
    ]
    assert_proved(in_progress, closed.certificate.run)
    assert in_progress.rows(
        "SELECT count(*) FROM ledger_eod.runs WHERE kind = 'preparation' AND status <> 'abandoned'"
    ) == [(0,)]


def test_on_a_ledger_without_a_close_there_is_nothing_to_do(books: Books) -> None:
    state = prepare_close(return_state=True)
    assert (state.name, state.message) == (NOTHING_TO_DO, "the ledger has no close yet")


def test_a_piece_that_fails_fails_the_run_and_the_next_one_counts_it(
    in_progress: Books, monkeypatch: pytest.MonkeyPatch
) -> None:
    in_progress.execute(
        "CREATE FUNCTION public.poison() RETURNS trigger LANGUAGE plpgsql AS "
        "$$ BEGIN RAISE EXCEPTION 'poisoned'; END $$"
    )
    in_progress.execute(
        "CREATE TRIGGER poison BEFORE INSERT ON ledger_eod.prepared_parts FOR EACH ROW EXECUTE FUNCTION public.poison()"
    )
    state = prepare_close(return_state=True)
    assert state.is_failed()
    assert "1 of 1 tasks failed, the other pieces are kept; the next run counts them" in str(state.message)
    assert "poisoned" in str(state.message)
    in_progress.execute("DROP TRIGGER poison ON ledger_eod.prepared_parts")
    result = prepare_close()
    assert isinstance(result, PreparationResult)
    assert result.piece_count == 1


def test_an_unreachable_ledger_fails_the_run(ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    dispose_engines()
    monkeypatch.setenv("LEDGER_DATABASE_URL", "postgresql://nobody@127.0.0.1:1/ledger")
    from ledger_db.settings import get_settings

    get_settings.cache_clear()
    from tasks import close as closing

    monkeypatch.setattr(closing.open_preparation, "retry_delay_seconds", [0.0])
    monkeypatch.setattr(closing.open_preparation, "retry_jitter_factor", None)
    state = prepare_close(return_state=True)
    assert state.is_failed()
