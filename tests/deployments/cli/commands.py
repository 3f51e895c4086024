"""Run a command as its user does: what it printed, or how it was refused."""

from __future__ import annotations

import json
from typing import Any

import pytest

from deployments.cli import run

JANUARY = """
    recorded          effective         source  destination  amount
    2026-01-05 09:00  2026-01-05 09:00  @world  wallet       1200.00 USD
    2026-01-06 09:00  2026-01-06 09:00  wallet  @fees          50.00 USD
"""


def json_of(capsys: pytest.CaptureFixture[str], *arguments: str) -> Any:
    """What a command that must succeed prints as JSON."""
    assert run(arguments) == 0
    return json.loads(capsys.readouterr().out)


def refusal_of(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str]:
    """Exit code and message of a command that must fail, in one line and with nothing on standard output."""
    code = run(arguments)
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.count("\n") == 1
    assert captured.err.startswith("ledger-eod: ")
    assert "Traceback" not in captured.err
    return code, captured.err.removeprefix("ledger-eod: ").rstrip("\n")
