"""The doctor: what it reports and advises."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from deployments.cli import run
from ledger_db.close.opening import open_interim
from ledger_db.close.runs import find_run
from ledger_db.core.calendar import BusinessCalendar
from tests.deployments.cli.commands import json_of
from tests.testing.books import Books


def _left_open(capsys: pytest.CaptureFixture[str]) -> list[str]:
    found = json_of(capsys, "doctor", "--json")
    assert {each["status"] for each in found} <= {"ok", "missing"}
    return [each["detail"] for each in found if each["subject"] == "open interim run"]


@pytest.mark.parametrize("finished", [True, False])
def test_doctor_names_an_interim_run_that_was_left_open_when_its_day_passed(
    january: Books, prefect_api_url: str, capsys: pytest.CaptureFixture[str], finished: bool
) -> None:
    today = datetime.now(UTC)
    with january.engine.begin() as connection:
        left = open_interim(connection, calendar=BusinessCalendar(), now=datetime(2026, 1, 7, 12, tzinfo=UTC))
        current = open_interim(connection, calendar=BusinessCalendar(), now=today)
    assert left is not None and current is not None
    (told,) = _left_open(capsys)
    assert told == (
        f"interim 2026-01-07 (run {left.run_id}): unfinished, and its day has passed; ledger-eod snapshot --kind "
        f"interim --date 2026-01-07 finishes it, ledger-eod abandon {left.run_id} --yes gives it up"
    )
    advice = told.split("; ")[1].split(", ")[0 if finished else 1].split(" ")[1:]
    assert run(advice[: advice.index("finishes" if finished else "gives")]) == 0
    capsys.readouterr()
    assert _left_open(capsys) == []
    with january.engine.connect() as connection:
        assert find_run(connection, left.run_id).status == ("certified" if finished else "abandoned")
        assert find_run(connection, current.run_id).status == "open"
