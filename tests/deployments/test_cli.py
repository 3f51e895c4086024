"""The command line: what it prints, what it returns, and that an error is one line without secrets."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from deployments.cli import run
from ledger_db.close.opening import open_interim
from ledger_db.close.runs import find_run, hold_run
from ledger_db.core.calendar import BusinessCalendar
from ledger_db.settings import get_settings
from tests.testing.books import Books, Ledger

REFERENCE_FIELDS = {
    "balance_id", "currency", "balance", "credit_balance", "debit_balance", "inflight_balance",
    "inflight_credit_balance", "inflight_debit_balance",
}  # fmt: skip
YESTERDAY = datetime.now(UTC).date() - timedelta(days=1)

JANUARY = """
    recorded          effective         source  destination  amount
    2026-01-05 09:00  2026-01-05 09:00  @world  wallet       1200.00 USD
    2026-01-06 09:00  2026-01-06 09:00  wallet  @fees          50.00 USD
"""


@pytest.fixture
def january(books: Books) -> Books:
    """Two days, closed in order."""
    books.post(JANUARY)
    books.close_day("2026-01-05")
    books.close_day("2026-01-06")
    return books


def _json(capsys: pytest.CaptureFixture[str], *arguments: str) -> Any:
    assert run(arguments) == 0
    return json.loads(capsys.readouterr().out)


def _refusal(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str]:
    """Exit code and message of a command that must fail, in one line and with nothing on standard output."""
    code = run(arguments)
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.count("\n") == 1
    assert captured.err.startswith("ledger-eod: ")
    assert "Traceback" not in captured.err
    return code, captured.err.removeprefix("ledger-eod: ").rstrip("\n")


# Reading ------------------------------------------------------------------------------------------------------------


def test_balance_at_has_the_reference_fields_and_amounts_as_strings(
    january: Books, capsys: pytest.CaptureFixture[str]
) -> None:
    answer = _json(capsys, "balance-at", "bln_wallet", "--at", "2026-01-06", "--json")
    assert answer == {
        "balance_id": "bln_wallet",
        "currency": "USD",
        "balance": "115000",
        "credit_balance": "120000",
        "debit_balance": "5000",
        "inflight_balance": "0",
        "inflight_credit_balance": "0",
        "inflight_debit_balance": "0",
        "timestamp": "2026-01-07T00:00:00Z",
        "known_at": None,
        "from_source": False,
        "correction_ids": [],
    }


def test_balance_at_answers_one_instant_the_same_in_every_offset(
    january: Books, capsys: pytest.CaptureFixture[str]
) -> None:
    spelled = ("2026-01-06T09:00:00Z", "2026-01-06T14:30:00+05:30", "2026-01-06T04:00:00-05:00")
    answers = [_json(capsys, "balance-at", "bln_wallet", "--at", at, "--json") for at in spelled]
    assert [answer["balance"] for answer in answers] == ["120000"] * 3
    assert {answer["timestamp"] for answer in answers} == {"2026-01-06T09:00:00Z"}


def test_a_date_is_the_close_of_the_business_date_in_the_configured_zone(
    january: Books, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LEDGER_TIME_ZONE", "Europe/Berlin")
    monkeypatch.setenv("LEDGER_CUT_OFF", "17:00")
    get_settings.cache_clear()
    answer = _json(capsys, "balance-at", "@world", "--at", "2026-01-06", "--json")
    assert answer["timestamp"] == "2026-01-06T16:00:00Z"


@pytest.mark.parametrize("known_at", ["2026-01-05", "1"])
def test_known_at_takes_a_date_or_a_run_and_from_source_agrees(
    january: Books, capsys: pytest.CaptureFixture[str], known_at: str
) -> None:
    january.post("""
        recorded          effective         source  destination  amount
        2026-02-01 09:00  2026-01-05 10:00  @world  wallet       7.00 USD
    """)
    asked = ("balance-at", "bln_wallet", "--at", "2026-01-05", "--json")
    known = _json(capsys, *asked, "--known-at", known_at)
    assert (known["balance"], known["known_at"]) == ("120000", {"run_id": 1, "business_date": "2026-01-05"})
    assert _json(capsys, *asked)["balance"] == "120700"
    assert _json(capsys, *asked, "--from-source")["balance"] == "120700"


def test_an_indicator_in_several_currencies_needs_one(books: Books, capsys: pytest.CaptureFixture[str]) -> None:
    books.post("""
        recorded          source  destination  amount
        2026-01-05 09:00  @world  wallet       1200.00 USD
        2026-01-05 09:00  @world  purse        3.00 EUR
    """)
    asked = ("balance-at", "@world", "--at", "2026-01-05")
    assert _refusal(capsys, *asked) == (1, "@world is kept in EUR, USD: say which with --currency")
    assert _json(capsys, *asked, "--currency", "EUR", "--json")["balance"] == "-300"


def test_amounts_beyond_64_bits_are_exact(books: Books, capsys: pytest.CaptureFixture[str]) -> None:
    books.post(f"""
        recorded          source  destination  amount
        2026-01-05 09:00  @world  wallet       {2**80}.00 USD
    """)
    assert _json(capsys, "balances", "--json")[0]["balance"] == str(-(2**80) * 100)
    assert _json(capsys, "balance-at", "bln_wallet", "--at", "2026-01-05", "--json")["balance"] == str(2**80 * 100)
    assert run(["balances"]) == 0
    assert f"{2**80 * 100:,}" in capsys.readouterr().out


def test_balances_go_on_after_the_last_of_a_page(january: Books, capsys: pytest.CaptureFixture[str]) -> None:
    everything = _json(capsys, "balances", "--json")
    assert all(balance.keys() >= REFERENCE_FIELDS for balance in everything)
    first = _json(capsys, "balances", "--limit", "2", "--json")
    rest = _json(capsys, "balances", "--after", first[-1]["balance_id"], "--json")
    assert first + rest == everything
    assert _json(capsys, "balances", "--currency", "EUR", "--json") == []


def test_runs_tell_what_they_add_up_to(january: Books, capsys: pytest.CaptureFixture[str]) -> None:
    newest, oldest = _json(capsys, "runs", "--json")
    assert (newest["business_date"], oldest["business_date"]) == ("2026-01-06", "2026-01-05")
    assert newest["closes_at"] == "2026-01-07T00:00:00Z"
    assert [(total["currency"], total["credit_balance"], total["difference"]) for total in newest["totals"]] == [
        ("USD", "125000", "0")
    ]


# Doing --------------------------------------------------------------------------------------------------------------


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
    runs = _json(capsys, "runs", "--json")
    assert [(entry["business_date"], entry["status"]) for entry in runs] == [
        (str(YESTERDAY), "certified"),
        (since, "certified"),
    ]
    assert {total["difference"] for entry in runs for total in entry["totals"]} == {"0"}
    assert run(["close"]) == 0
    assert "every business date that has ended is closed" in capsys.readouterr().out
    assert run(["snapshot"]) == 0
    assert "certified already" in capsys.readouterr().out
    assert _json(capsys, "runs", "--json") == runs


def test_a_snapshot_another_process_is_at_exits_with_3(
    books: Books, prefect_api_url: str, capsys: pytest.CaptureFixture[str]
) -> None:
    books.post(JANUARY)
    with books.engine.begin() as connection:
        from tasks.close import calendar

        at_work = open_interim(connection, calendar=calendar(), now=datetime.now(UTC))
    assert at_work is not None
    with hold_run(books.engine, at_work.run_id) as mine:
        assert mine
        code, message = _refusal(capsys, "snapshot", "--kind", "interim")
        assert (code, message) == (3, f"another process is at work on {at_work.name}")
        assert _refusal(capsys, "abandon", str(at_work.run_id), "--yes")[0] == 3
    assert run(["abandon", str(at_work.run_id)]) == 0
    assert "repeat with --yes" in capsys.readouterr().out
    assert run(["abandon", str(at_work.run_id), "--yes"]) == 0
    assert "is abandoned" in capsys.readouterr().out


def test_a_day_that_has_not_ended_is_refused_in_one_line(
    ledger: Ledger, prefect_api_url: str, capsys: pytest.CaptureFixture[str]
) -> None:
    tomorrow = date.today() + timedelta(days=2)  # noqa: DTZ011 - a day on, whatever the zone
    code, message = _refusal(capsys, "snapshot", "--date", str(tomorrow))
    assert code == 1
    assert message.startswith(f"{tomorrow} has not ended: ")


def test_import_loads_a_file_and_lists_the_bad_rows_of_another(
    books: Books, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    for name in ("@world", "wallet"):
        books.open(name)
    good = tmp_path / "good.csv"
    good.write_text("reference,source,destination,amount,currency\nr1,@world,bln_wallet,12.00,USD\n")
    assert run(["import", str(good)]) == 0
    assert "1 transactions recorded, 2 balances moved" in capsys.readouterr().out
    bad = tmp_path / "bad.csv"
    bad.write_text(
        "reference,source,destination,amount,currency\nr2,@world,bln_wallet,-1,USD\nr3,@world,bln_nobody,1.00,USD\n"
    )
    assert run(["import", str(bad)]) == 1
    captured = capsys.readouterr()
    assert captured.err.splitlines()[0] == "ledger-eod: bad.csv: 2 rows cannot be booked, nothing was loaded"
    assert [line.split(":")[0] for line in captured.err.splitlines()[1:]] == ["line 2", "line 3"]
    assert books.stored("wallet") == "12.00"


# Refusing -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (("balance-at", "bln_wallet", "--at", "2026-01-06T09:00:00"), 2, "has no offset"),
        (("balance-at", "bln_wallet", "--at", "yesterday"), 2, "is not an instant"),
        (("balance-at", "bln_wallet"), 2, "--at"),
        (("balance-at", "bln_nobody", "--at", "2026-01-06"), 1, "there is no balance bln_nobody"),
        (("balance-at", "@nobody", "--at", "2026-01-06", "--currency", "EUR"), 1, "no balance @nobody in EUR"),
        (("balance-at", "bln_wallet", "--at", "2026-01-06", "--known-at", "99"), 1, "there is no run 99"),
        (("balance-at", "bln_wallet", "--at", "2026-01-06", "--known-at", "2020-01-01"), 1, "no certified close"),
        (("balance-at", "bln_wallet", "--at", "2026-01-06", "--known-at", "last"), 2, "neither a date nor a run"),
        (("balances", "--limit", "0"), 2, "--limit"),
        (("balances", "--after", "bln_nobody"), 1, "there is no balance bln_nobody"),
        (("snapshot", "--kind", "weekly"), 2, "--kind"),
        (("snapshot", "--batch-size", "0"), 2, "--batch-size"),
        (("close", "--since", "31.01.2026"), 2, "is not a date"),
        (("abandon", "99", "--yes"), 1, "there is no run 99"),
        (("abandon", "1", "--yes"), 1, "is certified"),
        (("import", "/nowhere.csv"), 2, "/nowhere.csv"),
        (("generate", "--balances", "1"), 1, "balances at least"),
        (("repair",), 2, "repair"),
    ],
)
def test_a_mistake_is_one_line(
    january: Books, capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...], code: int, said: str
) -> None:
    found, message = _refusal(capsys, *arguments)
    assert found == code
    assert said in message


def test_an_external_ledger_without_the_schema_says_what_to_run(
    empty_database: Ledger, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("LEDGER_DATABASE_URL", empty_database.url.render_as_string(hide_password=False))
    get_settings.cache_clear()
    code, message = _refusal(capsys, "balances")
    assert code == 2
    assert "run ledger-eod migrate" in message
    assert run(["migrate"]) == 0
    assert run(["migrate"]) == 0
    assert "is already at" in capsys.readouterr().out
    assert _json(capsys, "balances", "--json") == []


@pytest.mark.parametrize("command", ["migrate", "balances", "runs", "close", "doctor"])
def test_an_unreachable_ledger_is_reported_without_its_password(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], command: str
) -> None:
    monkeypatch.setenv("LEDGER_DATABASE_URL", "postgresql://clerk:s3cret@127.0.0.1:1/ledger")
    monkeypatch.setenv("PREFECT_API_URL", "http://127.0.0.1:1/api")
    get_settings.cache_clear()
    assert run([command]) == 2
    captured = capsys.readouterr()
    assert "s3cret" not in captured.out + captured.err
    assert "127.0.0.1:1" in captured.out + captured.err
    assert command == "doctor" or captured.err.count("\n") == 1


@pytest.mark.parametrize(
    ("variable", "value", "said"),
    [
        ("LEDGER_TIME_ZONE", "Berlin", "LEDGER_TIME_ZONE: 'Berlin' is not an IANA time zone"),
        ("LEDGER_BATCH_SIZE", "0", "LEDGER_BATCH_SIZE: "),
        ("LEDGER_DATABASE_URL", "mysql://clerk:s3cret@host/ledger", "LEDGER_DATABASE_URL: must be a PostgreSQL URL"),
    ],
)
def test_a_wrong_setting_is_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], variable: str, value: str, said: str
) -> None:
    monkeypatch.setenv(variable, value)
    get_settings.cache_clear()
    code, message = _refusal(capsys, "balances")
    assert code == 2
    assert message.startswith(said)
    assert "s3cret" not in message


def test_debug_shows_where(january: Books) -> None:
    with pytest.raises(Exception, match="there is no run 99"):
        run(["--debug", "abandon", "99", "--yes"])
    assert run(["balances", "--limit", "1"]) == 0


# Starting -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "arguments",
    [["--help"], ["close", "--help"], ["balances"], ["runs"], ["balance-at", "bln_wallet", "--at", "2026-01-06"]],
    ids=" ".join,
)
def test_light_commands_do_not_import_prefect(january: Books, arguments: list[str]) -> None:
    program = (
        "import sys\nfrom deployments.cli import run\n"
        f"code = run({arguments!r})\n"
        "assert not any(name.partition('.')[0] == 'prefect' for name in sys.modules), 'prefect was imported'\n"
        "sys.exit(code)"
    )
    environment = os.environ | {"LEDGER_DATABASE_URL": january.ledger.url.render_as_string(hide_password=False)}
    finished = subprocess.run(
        [sys.executable, "-c", program], env=environment, capture_output=True, text=True, timeout=60, check=False
    )
    assert finished.returncode == 0, finished.stderr
    assert finished.stderr == ""


def test_every_command_has_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["--help"]) == 0
    listed = capsys.readouterr().out.partition("Commands:")[2].partition("Settings are")[0]
    commands = [line.split()[0] for line in listed.splitlines() if line.strip()]
    assert commands == [
        "migrate", "generate", "import", "snapshot", "close", "verify", "discrepancies", "reconstruct", "corrections",
        "declare-opening", "abandon", "balance-at", "balances", "runs", "deploy", "serve", "doctor", "automations",
    ]  # fmt: skip
    for command in commands:
        assert run([command, "--help"]) == 0
        assert len(capsys.readouterr().out) > 200


def _left_open(capsys: pytest.CaptureFixture[str]) -> list[str]:
    found = _json(capsys, "doctor", "--json")
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


# Verifying ----------------------------------------------------------------------------------------------------------


def test_verify_finds_a_tampered_balance_and_discrepancies_lists_it(
    january: Books, prefect_api_url: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["verify"]) == 0
    assert "3 balances, nothing found" in capsys.readouterr().out
    assert run(["discrepancies"]) == 0
    assert capsys.readouterr().out == "no open discrepancies\n"
    january.execute("UPDATE blnk.balances SET credit_balance = credit_balance + 50 WHERE balance_id = 'bln_wallet'")
    verdict = _json(capsys, "verify", "bln_wallet", "--scope", "from-genesis", "--json")
    assert (verdict["balance_count"], verdict["finding_count"], verdict["explained_percent"]) == (1, 1, "100")
    (found,) = _json(capsys, "discrepancies", "--json")
    assert verdict["discrepancies"] == [found]
    assert (found["cause"], found["balance_id"], found["gross_difference"]) == (
        "tampered_stored_row",
        "bln_wallet",
        "50",
    )
    assert (found["stored"]["credit_balance"], found["proven"]["credit_balance"]) == ("120050", "120000")
    assert run(["discrepancies"]) == 0
    assert "tampered_stored_row" in capsys.readouterr().out


def test_an_opening_balance_is_declared_only_when_told(january: Books, capsys: pytest.CaptureFixture[str]) -> None:
    january.execute(
        "UPDATE blnk.balances SET credit_balance = 7, balance = 7 WHERE balance_id = :id", id=january.open("old")
    )
    asked = ["declare-opening", "bln_old", "--as", "ada", "--reason", "migrated"]
    assert run(asked) == 0
    assert "would declare bln_old: credit 7, debit 0" in capsys.readouterr().out
    assert january.rows("SELECT count(*) FROM ledger_eod.opening_balances") == [(0,)]
    assert run([*asked, "--yes"]) == 0
    assert january.rows("SELECT declared_by, reason, credit_balance FROM ledger_eod.opening_balances") == [
        ("ada", "migrated", 7)
    ]
    capsys.readouterr()
    assert _refusal(capsys, "declare-opening", "bln_old", "--as", " ", "--reason", "x")[0] == 1


# Correcting ---------------------------------------------------------------------------------------------------------

EIGHT_FIELDS = {
    "executed_at", "difference", "previous_balance", "previous_credit", "previous_debit", "recalculated_balance",
    "recalculated_credit", "recalculated_debit",
}  # fmt: skip
PROPOSING = ("reconstruct", "bln_wallet", "--apply", "--reason", "the bank's statement", "--as", "Ada")


@pytest.fixture
def drifted(january: Books) -> Books:
    """A stored row that somebody changed."""
    january.execute(
        "UPDATE blnk.balances SET credit_balance = credit_balance + 50, balance = balance + 50 "
        "WHERE balance_id = 'bln_wallet'"
    )
    return january


def test_reconstruct_says_what_was_and_what_is_and_changes_nothing(
    drifted: Books, prefect_api_url: str, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = drifted.stored_rows()
    report = _json(capsys, "reconstruct", "bln_wallet", "@world", "--json")
    assert report["approval_reasons"] == ["50 USD in all, the limit is 0 (minor units)"]
    wallet, world = report["results"]
    assert (wallet["verdict"], world["verdict"]) == ("correct", "agrees")
    assert all(isinstance(each[name], str) for each in (wallet, world) for name in EIGHT_FIELDS)
    assert [wallet[name] for name in ("previous_balance", "recalculated_balance", "difference")] == [
        "115050", "115000", "-50",
    ]  # fmt: skip
    assert run(["reconstruct", "bln_wallet"]) == 0
    assert "1 to correct; nothing was changed" in capsys.readouterr().out
    assert run(["corrections"]) == 0
    assert capsys.readouterr().out == "no corrections\n"
    assert drifted.stored_rows() == rows


def test_what_a_report_showed_is_approved_and_applied_by_its_hash(
    drifted: Books, prefect_api_url: str, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = drifted.stored_rows()
    figures_hash = _json(capsys, "reconstruct", "bln_wallet", "--json")["figures_hash"]
    asked = ("reconstruct", "bln_wallet", "--apply", "--approve", figures_hash, "--as", "Grace")
    assert "it needs a reason" in _refusal(capsys, *asked)[1]
    assert drifted.stored_rows() == rows
    assert run([*asked, "--reason", "the bank's statement"]) == 0
    assert "1 corrected" in capsys.readouterr().out
    (line,) = _json(capsys, "corrections", "--json")
    assert (line["proposed_by"], line["approved_by"]) == ("", "Grace")


def test_correction_is_proposed_approved_by_somebody_else_and_made_once(
    drifted: Books, prefect_api_url: str, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = drifted.stored_rows()
    assert run([*PROPOSING, "--json"]) == 4
    captured = capsys.readouterr()
    figures_hash = json.loads(captured.out)["figures_hash"]
    assert f"ledger-eod reconstruct --apply --approve {figures_hash[:16]} --as WHO" in captured.err
    assert "somebody else than Ada (50 USD in all, the limit is 0 (minor units))" in captured.err

    approving = ("reconstruct", "--apply", "--approve", figures_hash[:16])
    for arguments, code, said in (
        ((*approving, "--as", " ADA"), 1, "proposed this correction: somebody else must approve it"),
        ((*approving, "--as", ""), 2, "goes with --apply and --as WHO"),
        ((*approving, "bln_world_usd", "--as", "Grace"), 1, "is about other balances: bln_wallet"),
        ((*approving, "--select", "discrepancies", "--as", "Grace"), 2, "is about the balances of the proposal"),
        ((*approving[:3], "0" * 16, "--as", "Grace"), 1, "no proposal has figures with the hash"),
        ((*approving[:3], "a statement", "--as", "Grace"), 1, "is no hash of figures"),
    ):
        found, message = _refusal(capsys, *arguments)
        assert (found, said in message) == (code, True), message
        assert drifted.stored_rows() == rows

    assert run([*approving, "--as", "Grace"]) == 0
    assert "1 corrected" in capsys.readouterr().out
    assert drifted.stored("wallet") == "1150.00"
    (line,) = _json(capsys, "corrections", "bln_wallet", "--json")
    assert [line[name] for name in ("difference", "proposed_by", "approved_by", "reason", "cause")] == [
        "-50", "Ada", "Grace", "the bank's statement", "tampered_stored_row",
    ]  # fmt: skip
    assert (line["previous_credit_balance"], line["corrected_credit_balance"]) == ("120050", "120000")
    rows = drifted.stored_rows()
    code, message = _refusal(capsys, *approving, "--as", "Grace")
    assert (code, "was applied with these figures already, approved by Grace" in message) == (1, True)
    assert run(PROPOSING) == 0
    assert "1 right" in capsys.readouterr().out
    assert drifted.stored_rows() == rows
    assert drifted.rows("SELECT decision::text, decided_by FROM ledger_eod.approvals ORDER BY approval_id") == [
        ("refused", "ADA"), ("approved", "Grace"),
    ]  # fmt: skip


def test_approval_of_figures_that_changed_asks_again(
    drifted: Books, prefect_api_url: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run([*PROPOSING, "--json"]) == 4
    figures_hash = json.loads(capsys.readouterr().out)["figures_hash"]
    drifted.execute("UPDATE blnk.balances SET debit_balance = debit_balance + 7 WHERE balance_id = 'bln_wallet'")
    rows = drifted.stored_rows()
    assert run(["reconstruct", "--apply", "--approve", figures_hash, "--as", "Grace"]) == 4
    assert "the figures are no longer those that were approved" in capsys.readouterr().err
    assert drifted.stored_rows() == rows
