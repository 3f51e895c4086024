"""Hints: each has words for the command line, and the words name only commands and options that exist."""

from __future__ import annotations

import re

import pytest
from typer.main import get_command

from deployments.cli import exits
from deployments.cli.application import app
from deployments.hints import WORDS, with_hint
from ledger_db.errors import Hint, LedgerError, Misused, NotFound, NotYet, Refused, Unavailable

COMMANDS = get_command(app).commands  # type: ignore[attr-defined] # the application is a group
OPTIONS = {
    name: {option for parameter in command.params for option in parameter.opts} for name, command in COMMANDS.items()
}


def test_every_hint_has_words() -> None:
    assert list(WORDS) == list(Hint)
    assert all(words.strip() for words in WORDS.values())


@pytest.mark.parametrize("hint", Hint)
def test_words_name_commands_and_options_that_exist(hint: Hint) -> None:
    words = WORDS[hint]
    named = re.findall(r"ledger-eod ([a-z-]+)", words)
    assert words.count("ledger-eod ") == len(named)
    assert set(named) <= set(COMMANDS)
    known = set().union(*(OPTIONS[name] for name in named or COMMANDS))
    assert set(re.findall(r"--[a-z-]+", words)) <= known


@pytest.mark.parametrize("hint", [None, *Hint])
def test_error_is_its_message_and_its_hint(hint: Hint | None, capsys: pytest.CaptureFixture[str]) -> None:
    error = NotFound("there is no balance bln_nobody", hint=hint)
    words = "" if hint is None else f"; {WORDS[hint]}"
    assert with_hint(error) == f"there is no balance bln_nobody{words}"

    def fail() -> None:
        raise error

    assert exits.guarded(fail) == 1
    assert capsys.readouterr().err == f"ledger-eod: there is no balance bln_nobody{words}\n"


@pytest.mark.parametrize(
    ("family", "code"), [(LedgerError, 1), (NotFound, 1), (Refused, 1), (NotYet, 1), (Misused, 2), (Unavailable, 3)]
)
def test_exit_code_is_the_familys(family: type[LedgerError], code: int, capsys: pytest.CaptureFixture[str]) -> None:
    def fail() -> None:
        raise family("a fact")

    assert exits.guarded(fail) == code
    assert capsys.readouterr().err == "ledger-eod: a fact\n"
