"""The README's table of settings is the settings themselves: none missing, none gone, each with its own words."""

from __future__ import annotations

import re

from ledger_db.settings import Settings
from tests.testing import PROJECT


def test_readme_describes_each_setting_in_its_own_words() -> None:
    rows = re.findall(r"^\| `(LEDGER_[A-Z_]+)` \| [^|]+ \| (.+) \|$", (PROJECT / "README.md").read_text(), re.MULTILINE)

    assert {name: meaning.replace("`", "") for name, meaning in rows} == {
        f"LEDGER_{name.upper()}": field.description for name, field in Settings.model_fields.items()
    }
