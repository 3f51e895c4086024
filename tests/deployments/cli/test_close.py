"""Closing: snapshots, the end of day, the list of runs, and giving one up."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta

import pytest

from deployments.cli import run
from ledger_db.close.opening import open_interim
from ledger_db.close.runs import hold_run
from ledger_db.settings import get_settings
from tests.deployments.cli.commands import JANUARY, json_of, refusal_of
from tests.testing.books import Books, Ledger

YESTERDAY = datetime.now(UTC).date() - timedelta(days=1)


def test_runs_tell_what_they_add_up_to(january: Books, capsys: pytest.CaptureFixture[str]) -> None:
    newest, oldest = json_of(capsys, "runs", "--json")
    assert (newest["business_date"], oldest["business_date"]) == ("2026-01-06", "2026-01-05")
    assert newest["closes_at"] == "2026-01-07T00:00:00Z"
    assert [(total["currency"], total["credit_balance"], total["difference"]) for total in newest["totals"]] == [
        ("USD", "125000", "0")
    ]


def test_close_closes_generated_days_and_a_second_call_has_nothing_to_do(
    ledger: Ledger, prefect_api_url: str, capsys: pytest.CaptureFixture[str]
) -> None:
    size = ("--balances", "30", "--transactions", "300", "--days", "3", "--hot-balances", "3")
    assert run(["generate", *size]) == 0
    assert "30 balances and 300 transactions" in capsys.readouterr().out
    since = str(YESTERDAY - timedelta(days=1))
    assert run(["close", "--since", since, "--batch-size", "7"]) == 0
    closed = capsys.readouterr()
    assert "late arrivals" in closed.out
    assert "Finished in state" not in closed.err  # Prefect's log is for --verbose
    runs = json_of(capsys, "runs", "--json")
    assert [(entry["business_date"], entry["status"]) for entry in runs] == [
        (str(YESTERDAY), "certified"),
        (since, "certified"),
    ]
    assert {total["difference"] for entry in runs for total in entry["totals"]} == {"0"}
    assert run(["close"]) == 0
    assert "every business date that has ended is closed" in capsys.readouterr().out
    assert run(["snapshot"]) == 0
    assert "certified already" in capsys.readouterr().out
    assert json_of(capsys, "runs", "--json") == runs


def test_a_snapshot_another_process_is_at_exits_with_3(
    books: Books, prefect_api_url: str, capsys: pytest.CaptureFixture[str]
) -> None:
    books.post(JANUARY)
    with books.engine.begin() as connection:
        at_work = open_interim(connection, calendar=get_settings().calendar, now=datetime.now(UTC))
    assert at_work is not None
    with hold_run(books.engine, at_work.run_id) as mine:
        assert mine
        code, message = refusal_of(capsys, "snapshot", "--kind", "interim")
        assert (code, message) == (3, f"another process is at work on {at_work.name}")
        assert refusal_of(capsys, "abandon", str(at_work.run_id), "--yes")[0] == 3
    assert run(["abandon", str(at_work.run_id)]) == 0
    assert "repeat with --yes" in capsys.readouterr().out
    assert run(["abandon", str(at_work.run_id), "--yes"]) == 0
    assert "is abandoned" in capsys.readouterr().out


def test_a_day_that_has_not_ended_is_refused_in_one_line(
    ledger: Ledger, prefect_api_url: str, capsys: pytest.CaptureFixture[str]
) -> None:
    tomorrow = date.today() + timedelta(days=2)  # noqa: DTZ011 - a day on, whatever the zone
    code, message = refusal_of(capsys, "snapshot", "--date", str(tomorrow))
    assert code == 1
    assert message.startswith(f"{tomorrow} has not ended: ")
