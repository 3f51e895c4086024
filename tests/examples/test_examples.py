"""Every example prints what is committed beside it, and every page shows what an example prints."""

from __future__ import annotations

import importlib
import os
import subprocess
import sys

import pytest
from sqlalchemy import URL

from examples.__main__ import FOLDER, NAMES
from tests.conftest import EXTERNAL_SERVER, SERVER_FOLDER_VARIABLE
from tests.testing import PROJECT
from tests.testing.books import Ledger

SESSION = "$ python -m examples."
PAGES = [PROJECT / "README.md", PROJECT / "CONTRIBUTING.md", *sorted((PROJECT / "docs").rglob("*.md"))]


def committed(name: str) -> str:
    return (FOLDER / f"{name}.out").read_text(encoding="utf-8")


def test_every_example_has_its_output() -> None:
    shared = {"__init__", "__main__", "ledger"}

    assert set(NAMES) == {path.stem for path in FOLDER.glob("*.py")} - shared


@pytest.mark.parametrize("name", NAMES)
def test_prints_what_is_committed(name: str, ledger: Ledger, capsys: pytest.CaptureFixture[str]) -> None:
    importlib.import_module(f"examples.{name}").main(ledger.engine)

    assert capsys.readouterr().out == committed(name)


@pytest.mark.skipif(bool(EXTERNAL_SERVER), reason="the examples make their database on the embedded server")
def test_prints_the_same_from_a_shell_and_a_second_time(server_url: URL) -> None:
    environment = os.environ | {"LEDGER_DATA_FOLDER": os.environ[SERVER_FOLDER_VARIABLE], "PYTHONUTF8": "1"}
    for _ in range(2):
        program = [sys.executable, "-m", "examples.close_by_hand"]
        answer = subprocess.run(
            program, env=environment, cwd=PROJECT, capture_output=True, encoding="utf-8", check=True
        )

        assert answer.stdout == committed("close_by_hand")


def sessions() -> list[tuple[str, str, list[str]]]:
    """Fenced blocks that show an example: page, example, lines."""
    found = []
    for page in PAGES:
        for block in page.read_text(encoding="utf-8").split("```")[1::2]:
            first, *lines = block.partition("\n")[2].rstrip("\n").split("\n")
            if first.startswith(SESSION):
                found.append((str(page.relative_to(PROJECT)), first.removeprefix(SESSION), lines))
    return found


@pytest.mark.parametrize(
    ("page", "name", "lines"), sessions(), ids=lambda value: value if isinstance(value, str) else ""
)
def test_pages_show_what_is_printed(page: str, name: str, lines: list[str]) -> None:
    """Line by line and in order; a line with ``…`` alone stands for lines that are left out."""
    printed = committed(name).splitlines()
    position = 0
    left_out = False
    for line in lines:
        if line.strip() == "…":
            left_out = True
            continue
        assert line in printed[position:], f"{page}: {name} does not print {line!r} here"
        found = printed.index(line, position)
        assert left_out or found == position, f"{page}: lines before {line!r} are left out and not marked"
        position, left_out = found + 1, False


def test_the_readme_begins_with_an_example() -> None:
    assert sessions()[0][0] == "README.md"
