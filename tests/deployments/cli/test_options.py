"""Options: what a command takes is what the ledger knows."""

from __future__ import annotations

from enum import StrEnum
from typing import Any, get_args

import pytest

from deployments.cli.options import ListedKind, ReconstructionSelection, VerificationScope
from ledger_db.close.runs import Kind
from ledger_db.correction.reconstructions import Selection
from ledger_db.verification.sweeps import Scope


@pytest.mark.parametrize(
    ("choices", "known"), [(ListedKind, Kind), (VerificationScope, Scope), (ReconstructionSelection, Selection)]
)
def test_choices_are_the_known_values(choices: type[StrEnum], known: Any) -> None:
    assert [choice.value for choice in choices] == list(get_args(known))
