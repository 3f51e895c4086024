"""Closing: snapshots, the end of day, the list of runs, and giving one up."""

from __future__ import annotations

import re
from datetime import UTC, date, datetime, timedelta

import pytest

from deployments.cli import run
from ledger_db.close import later_digests
from ledger_db.close.later_digests import Fate
from ledger_db.close.opening import open_interim
from ledger_db.close.runs import hold_run, list_runs
from ledger_db.settings import get_settings
from tests.deployments.cli.commands import JANUARY, json_of, refusal_of
from tests.testing.books import Books, Ledger, unguarded

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


def test_the_first_close_of_a_ledger_with_a_history_asks_where_to_begin(
    ledger: Ledger, prefect_api_url: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["generate", "--balances", "6", "--transactions", "60", "--days", "3", "--hot-balances", "1"]) == 0
    capsys.readouterr()
    for command in ("close", "snapshot"):
        code, message = refusal_of(capsys, command)
        assert code == 1
        assert "the 3 business dates from then to" in message
        assert message.endswith(
            "say where its closes begin: ledger-eod close --from-first-posting, --since DATE, or --only-last"
        )
    code, message = refusal_of(capsys, "close", "--since", "1926-11-22")
    assert (code, message.split("; ")[-1]) == (1, "if you mean it, ledger-eod close takes it with --yes")
    assert refusal_of(capsys, "close", "--only-last", "--from-first-posting")[0] == 2
    assert json_of(capsys, "runs", "--json") == []
    assert run(["close", "--only-last"]) == 0
    capsys.readouterr()
    before = json_of(capsys, "runs", "--json")
    assert [entry["business_date"] for entry in before] == [str(YESTERDAY)]
    for chosen in (("--since", "1993-01-01"), ("--from-first-posting",)):
        code, message = refusal_of(capsys, "close", *chosen)
        assert code == 1
        assert message.startswith(f"the first close of this ledger is of {YESTERDAY}: ")
    assert json_of(capsys, "runs", "--json") == before


def test_a_ledger_without_balances_is_not_closed(
    ledger: Ledger, prefect_api_url: str, capsys: pytest.CaptureFixture[str]
) -> None:
    for command in (("close",), ("snapshot",), ("snapshot", "--kind", "interim"), ("close", "--only-last")):
        code, message = refusal_of(capsys, *command)
        assert code == 1
        assert f"/{ledger.url.database}" in message
        assert " has no balances; set LEDGER_DATABASE_URL to the ledger that you mean; " in message
    assert json_of(capsys, "runs", "--json") == []


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


def test_the_date_in_progress_is_counted_in_advance(
    books: Books, prefect_api_url: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["prepare-close"]) == 0
    assert capsys.readouterr().out == "the ledger has no close yet\n"
    books.post(f"""
        recorded            source  destination  amount
        {YESTERDAY} 00:01  @world  wallet       1.00 USD
    """)
    books.close_day(str(YESTERDAY))
    books.post(f"""
        recorded            source  destination  amount
        {datetime.now(UTC).date()} 00:01  @world  wallet       2.00 USD
    """)
    books.fill_part()
    assert run(["prepare-close"]) == 0
    assert re.fullmatch(
        rf"{datetime.now(UTC).date()}: 1 piece counted in advance in \d+\.\d s\n", capsys.readouterr().out
    )
    assert [listed["kind"] for listed in json_of(capsys, "runs", "--json")] == ["close"]
    (prepared,) = json_of(capsys, "runs", "--kind", "preparation", "--json")
    assert (prepared["status"], prepared["business_date"]) == ("open", str(datetime.now(UTC).date()))
    assert refusal_of(capsys, "snapshot", "--kind", "preparation")[0] == 2
    assert run(["abandon", str(prepared["run_id"]), "--yes"]) == 0
    assert "the next close or snapshot of" in capsys.readouterr().out


def test_closes_of_this_version_need_no_new_digests(january: Books, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["digest-closes"]) == 0
    assert capsys.readouterr().out == "no close is that old\n"


def test_old_closes_are_digested_anew_or_named(
    january: Books, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    with january.engine.connect() as connection:
        newest, oldest = list_runs(connection)
    monkeypatch.setattr(
        later_digests, "digest_old_closes", lambda _: {Fate.digested: [oldest, newest], Fate.differs: [newest]}
    )
    assert run(["digest-closes"]) == 1
    assert capsys.readouterr().out.splitlines() == [
        "2 closes (2026-01-05 to 2026-01-06) digested anew",
        "1 close (2026-01-06) left as it is: its rows are not those of its checksums",
    ]


def test_a_day_that_has_not_ended_is_refused_in_one_line(
    ledger: Ledger, prefect_api_url: str, capsys: pytest.CaptureFixture[str]
) -> None:
    tomorrow = date.today() + timedelta(days=2)  # noqa: DTZ011 - a day on, whatever the zone
    code, message = refusal_of(capsys, "snapshot", "--date", str(tomorrow))
    assert code == 1
    assert message.startswith(f"{tomorrow} has not ended: ")


def test_a_new_chain_is_proposed_shown_approved_by_somebody_else_and_certified(
    january: Books, prefect_api_url: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["new-chain"]) == 0
    assert capsys.readouterr().out == "no new chain was begun: every close goes on from the one before it\n"
    unguarded(
        january, "blnk.transactions",
        "UPDATE blnk.transactions SET amount = 40, precise_amount = 4000 WHERE reference = "
        "(SELECT min(reference) FROM blnk.transactions WHERE amount = 50)",
    )  # fmt: skip
    assert run(["new-chain", "--reason", "the bank's statement", "--as", "Ada"]) == 4
    proposed = capsys.readouterr().out
    assert "bln_wallet" in proposed
    assert "edited or gone" in proposed
    (figures_hash,) = re.findall(r"--approve ([0-9a-f]{64}) --as WHO", proposed)
    assert run(["new-chain"]) == 0
    assert capsys.readouterr().out == proposed
    code, refusal = refusal_of(capsys, "close")  # the night
    assert code == 1
    assert "begins a new chain, which Ada proposed and somebody else must approve" in refusal
    assert "ledger-eod new-chain shows what it differs by" in refusal
    for asked, code, refused in (
        (("--approve", "0" * 64, "--as", "Grace"), 1, "no new chain waits with the hash"),
        (("--approve", figures_hash, "--as", " ADA"), 1, "proposed this: somebody else must approve it"),
        (("--approve", figures_hash), 2, "--as"),
        (("--reason", "x", "--approve", figures_hash, "--as", "Grace"), 2, "--as"),
        (("--as", "Grace"), 2, "--as"),
        (("--reason", "another", "--as", "Ada"), 1, "Ada has proposed a new chain already"),
    ):
        found, message = refusal_of(capsys, "new-chain", *asked)
        assert found == code, message
        assert refused in message
    assert run(["new-chain", "--approve", figures_hash, "--as", "Grace"]) == 0
    assert "2026-01-07" in capsys.readouterr().out
    first, *_ = json_of(capsys, "runs", "--json")
    assert (first["business_date"], first["status"], first["base_run_id"]) == ("2026-01-07", "certified", None)
    assert run(["new-chain"]) == 0
    assert "certified" in capsys.readouterr().out
