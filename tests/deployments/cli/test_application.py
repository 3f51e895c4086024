"""The application: every command has help and starts fast; an error is one line without secrets."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from deployments.cli import run
from ledger_db.settings import get_settings
from tests.deployments.cli.commands import refusal_of
from tests.testing.books import Books


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
    found, message = refusal_of(capsys, *arguments)
    assert found == code
    assert said in message


@pytest.mark.parametrize(
    "command",
    ["close", "snapshot", "prepare-close", "verify", "reconstruct", "balances", "runs", "digest-closes", "new-chain"],
)
def test_no_command_makes_an_empty_ledger_where_none_is_named(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path, command: str
) -> None:
    folder = tmp_path / "data"
    monkeypatch.setenv("LEDGER_DATA_FOLDER", str(folder))
    get_settings.cache_clear()
    code, message = refusal_of(capsys, command)
    assert code == 2
    assert message.startswith("no ledger is named: LEDGER_DATABASE_URL is not set, and ")
    assert f"{folder} has no embedded one" in message
    assert not folder.exists()


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
    code, message = refusal_of(capsys, "balances")
    assert code == 2
    assert message.startswith(said)
    assert "s3cret" not in message


def test_debug_shows_where(january: Books) -> None:
    with pytest.raises(Exception, match="there is no run 99"):
        run(["--debug", "abandon", "99", "--yes"])
    assert run(["balances", "--limit", "1"]) == 0


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
        "migrate", "generate", "import", "snapshot", "close", "prepare-close", "verify", "discrepancies", "reconstruct",
        "corrections", "declare-opening", "abandon", "new-chain", "digest-closes", "balance-at", "balances", "runs",
        "deploy", "serve", "doctor", "automations",
    ]  # fmt: skip
    for command in commands:
        assert run([command, "--help"]) == 0
        assert len(capsys.readouterr().out) > 200
