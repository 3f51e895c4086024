"""The flow that verifies stored balances, on a real Prefect server and a real ledger."""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import date
from typing import Any

import pytest
from prefect.client.schemas.objects import State

from flows.end_of_day import EndOfDayResult, end_of_day
from flows.parts import batches
from flows.verify_balances import VerificationOutcome, verify_balances
from ledger_db.verification.sweeps import collect_postings, hold_scope, open_verification
from tasks import verification as verifying
from tests.testing.books import Books
from tests.testing.flow_runs import Heard, artifact, artifact_keys, listening, name_of

pytestmark = pytest.mark.usefixtures("prefect_api_url")


@pytest.fixture
def heard() -> Iterator[Heard]:
    with listening() as records:
        yield records


@pytest.fixture
def closed(books: Books) -> Books:
    """Ten balances and a closed day."""
    rows = [f"2025-01-31 09:00  @world  w{n}  {n}.00 USD" for n in range(1, 10)]
    books.post("\n".join(["recorded  source  destination  amount", *rows]))
    books.close_day("2025-01-31")
    return books


@pytest.fixture(autouse=True)
def quick_retries(monkeypatch: pytest.MonkeyPatch) -> None:
    for each in (verifying.verify_ranges, verifying.check_runs, verifying.collect_postings):
        monkeypatch.setattr(each, "retry_delay_seconds", [0.0])
        monkeypatch.setattr(each, "retry_jitter_factor", None)


def tamper(books: Books, name: str, by: int) -> None:
    books.execute(
        "UPDATE blnk.balances SET credit_balance = credit_balance + :by, balance = balance + :by "
        "WHERE balance_id = :id", by=by, id=f"bln_{name}",
    )  # fmt: skip


def sweep(**parameters: Any) -> State[Any]:
    return verify_balances(return_state=True, **parameters)


@pytest.mark.parametrize("scope", ["since-close", "from-genesis", "checksums"])
def test_healthy_books_are_verified_in_one_line(closed: Books, heard: Heard, scope: Any) -> None:
    state = sweep(scope=scope, batch_size=3)
    result = state.result()
    assert isinstance(result, VerificationOutcome)
    assert state.name == "Completed"
    assert name_of(state).startswith(f"verify-balances-{scope}-")
    started, completed = heard.job_lines("verify_balances")
    assert (started["status"], completed["status"], completed["findings"]) == ("started", "completed", 0)
    assert (completed["explained_percent"], completed["causes"]) == ("100", {})
    assert completed["total_balances"] == (0 if scope == "checksums" else 10)
    assert artifact(f"discrepancies-{scope}", state) == [{"cause": "nothing found"}]


def test_a_part_is_verified_beside_the_whole_and_does_not_replace_its_table(closed: Books) -> None:
    tamper(closed, "w3", 50)
    whole = sweep()
    part = sweep(balance_ids=["bln_w1"])
    assert part.message is None or "nothing found" in part.message
    assert artifact("discrepancies-since-close", whole)[0]["about"] == "all 1"
    (key,) = {each for each in artifact_keys(part) if each.startswith("discrepancies")}
    assert re.fullmatch("discrepancies-since-close-part-[0-9a-f]{8}", key)
    assert artifact(key, part) == [{"cause": "nothing found"}]


@pytest.mark.parametrize("selection", [{"currency": "usd"}, {"ledger_id": "nope"}])
def test_a_selection_of_nothing_fails_the_run(closed: Books, selection: Any) -> None:
    state = sweep(**selection)
    assert (state.is_failed(), state.name) == (True, "Refused")
    assert "there is " in str(state.message) or "it has USD" in str(state.message)
    assert artifact_keys(state) == []
    assert closed.rows("SELECT count(*) FROM ledger_eod.verifications") == [(0,)]


def test_findings_are_told_worst_first_and_do_not_fail_the_run(closed: Books, heard: Heard) -> None:
    tamper(closed, "w3", 50)
    tamper(closed, "w7", -7000)
    state = sweep(batch_size=3)
    assert (state.is_completed(), state.name) == (True, "Found")
    assert state.message == (
        "since-close verification 1: 10 balances, 2 discrepancies, 2 of them new (tampered_stored_row); "
        "the tables of verify-balances list the open discrepancies"
    )
    total, *rows = artifact("discrepancies-since-close", state)
    assert (total["about"], total["gross difference"], total["currency"]) == ("all 2", "7050", "USD")
    assert [(row["about"], row["gross difference"], row["action"]) for row in rows] == [
        ("bln_w7", "7000", "correct"), ("bln_w3", "50", "correct"),
    ]  # fmt: skip
    line = heard.job_lines("verify_balances")[-1]
    assert (line["findings"], line["opened"], line["causes"]) == (2, 2, {"tampered_stored_row": 2})
    again = sweep(scope="from-genesis", batch_size=3)
    assert again.result().report.verification.opened_count == 0
    tamper(closed, "w3", -50)
    assert sweep().result().report.verification.closed_count == 1


def test_above_the_task_budget_a_task_verifies_several_batches(closed: Books, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batches, "TASK_BUDGET", 2)
    tamper(closed, "w3", 50)
    verification = sweep(batch_size=1).result().report.verification
    assert (verification.batch_count, verification.balance_count, verification.finding_count) == (10, 10, 1)


def test_one_bad_batch_fails_the_run_and_keeps_the_others_findings(
    closed: Books, monkeypatch: pytest.MonkeyPatch, heard: Heard
) -> None:
    tamper(closed, "w2", 50)
    tamper(closed, "w8", 50)
    closed.execute(
        "CREATE FUNCTION public.poison() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN "
        "IF NEW.balance_key = 3 THEN RAISE EXCEPTION 'poisoned'; END IF; RETURN NEW; END $$"
    )
    closed.execute("CREATE TRIGGER poison BEFORE INSERT ON ledger_eod.discrepancies "
                   "FOR EACH ROW EXECUTE FUNCTION public.poison()")  # fmt: skip
    state = sweep(batch_size=4)
    assert state.is_failed()
    assert str(state.message).startswith("1 of 3 tasks failed, the others' findings are kept and nothing is closed")
    assert "balance keys 1–4: poisoned" in str(state.message)
    assert closed.rows("SELECT status::text, failed_batch_count FROM ledger_eod.verifications") == [("abandoned", 1)]
    assert closed.rows("SELECT count(*) FROM ledger_eod.discrepancies") == [(1,)]
    assert heard.job_lines("verify_balances")[-1]["status"] == "failed"
    closed.execute("DROP TRIGGER poison ON ledger_eod.discrepancies")
    assert sweep(batch_size=4).result().report.verification.finding_count == 2


def test_a_scope_is_skipped_while_another_process_is_at_it(closed: Books) -> None:
    with hold_scope(closed.engine, "since-close") as mine:
        assert mine
        state = sweep()
        assert sweep(scope="checksums").name == "Completed"
    assert (state.name, state.message) == ("AtWork", "another process is at work on a since-close verification")


def test_what_a_killed_verification_left_is_given_up(closed: Books) -> None:
    with closed.engine.begin() as connection:
        left = open_verification(connection, scope="since-close")
        collect_postings(connection, left.verification_id)
    assert sweep().is_completed()
    assert closed.rows("SELECT status::text FROM ledger_eod.verifications ORDER BY 1") == [
        ("abandoned",),
        ("finished",),
    ]
    assert closed.rows("SELECT count(*) FROM ledger_eod.verification_sums") == [(0,)]


def test_a_ledger_without_a_close_fails_in_one_clear_line(books: Books, heard: Heard) -> None:
    books.open("wallet")
    state = sweep()
    assert state.is_failed()
    assert "there is no certified close to verify from" in str(state.message)
    assert "Traceback" not in heard.text
    assert sweep(scope="from-genesis").is_completed()


def test_the_night_ends_with_a_verdict(closed: Books) -> None:
    tamper(closed, "w3", 50)
    state = end_of_day(until=date(2025, 2, 1), return_state=True)
    assert state.is_completed()
    assert str(state.message).startswith(
        "closed up to 2025-02-01; since-close verification 1: 10 balances, 1 discrepancies, 1 of them"
    )
    night = state.result()
    assert isinstance(night, EndOfDayResult)
    assert night.dates == [date(2025, 2, 1)]
    again: Any = end_of_day(until=date(2025, 2, 1), return_state=True).result()
    assert (again.certificates, again.verified) == ([], None)  # the newest close has its verdict


def test_a_close_that_was_not_verified_is_verified_by_the_next_night(closed: Books) -> None:
    night: Any = end_of_day(until=date(2025, 1, 31), return_state=True).result()
    assert night.dates == []
    assert night.verified.report.verification.balance_count == 10
