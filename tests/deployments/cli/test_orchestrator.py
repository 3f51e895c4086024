"""The doctor: what it reports and advises."""

from __future__ import annotations

import json
from datetime import UTC, datetime

import pytest

from deployments.cli import run
from ledger_db.close.opening import open_interim
from ledger_db.close.runs import find_run
from ledger_db.core.calendar import BusinessCalendar
from tests.deployments.cli.commands import json_of
from tests.testing.books import Books, unguarded
from tests.testing.remade import make_anew, put_back


def _left_open(capsys: pytest.CaptureFixture[str]) -> list[str]:
    found = json_of(capsys, "doctor", "--json")
    assert {each["status"] for each in found} <= {"ok", "missing"}
    return [each["detail"] for each in found if each["subject"] == "open interim run"]


def _of_transactions(capsys: pytest.CaptureFixture[str]) -> tuple[str, str]:
    code = run(["doctor", "--json"])
    (found,) = [each for each in json.loads(capsys.readouterr().out) if each["subject"] == "transactions"]
    assert code == (2 if found["status"] == "wrong" else 0)
    return found["status"], found["detail"]


def test_doctor_says_that_the_next_close_could_not_count(
    january: Books, prefect_api_url: str, capsys: pytest.CaptureFixture[str]
) -> None:
    sound = ("ok", "recorded here, under the keys that closes counted")
    assert _of_transactions(capsys) == sound
    ((last,),) = january.rows("SELECT max(id) FROM blnk.transactions")
    number = "UPDATE blnk.transactions SET recorded_xid = {} WHERE id = {}"
    unguarded(january, "blnk.transactions", number.format("'900000000'", last))
    status, detail = _of_transactions(capsys)
    assert status == "wrong"
    assert "says it was recorded by database transaction 900000000, which this cluster has not reached" in detail
    unguarded(january, "blnk.transactions", number.format("NULL", last))
    assert _of_transactions(capsys) == sound
    make_anew(january, order="id DESC", keys_start_at="min(id)")
    status, detail = _of_transactions(capsys)
    assert status == "wrong"
    assert "when a close looked at it and is" in detail
    assert "ledger-eod new-chain begins a new chain of closes" in detail
    put_back(january)
    assert _of_transactions(capsys) == sound


def test_doctor_says_that_closes_are_not_the_sum_of_what_they_counted(
    january: Books, prefect_api_url: str, capsys: pytest.CaptureFixture[str]
) -> None:
    ((genesis,),) = january.rows("SELECT DISTINCT genesis_run_id FROM ledger_eod.runs")
    january.execute("INSERT INTO ledger_eod.chain_differences VALUES (:genesis, 2, 5, 0, 0, 0)", genesis=genesis)
    assert _of_transactions(capsys) == (
        "wrong",
        "the close of 2026-01-06 is not the sum of the rows that its chain counted: 1 balances differ, the first with "
        "key 2 (ledger_eod.chain_differences lists them). A transaction was moved over the end of a closed date, or "
        "removed, before rows were counted by their keys; where it is as it should be, ledger-eod new-chain begins a "
        "new chain of closes",
    )


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
