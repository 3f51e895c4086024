"""The wheel carries all that the installed packages read."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
PACKAGES = ("deployments", "flows", "ledger_db", "tasks")


def test_the_wheel_carries_every_statement_and_the_types_of_every_package(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "hatchling", "build", "--target", "wheel", "--directory", str(tmp_path)]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    (wheel,) = tmp_path.glob("*.whl")
    names = set(zipfile.ZipFile(wheel).namelist())
    statements = {path.relative_to(ROOT).as_posix() for path in (ROOT / "ledger_db").rglob("*.sql")}
    assert statements
    assert statements <= names
    assert {f"{package}/py.typed" for package in PACKAGES} <= names
    assert {"deployments/prefect.yaml", "ledger_db/attach/migrations/script.py.mako"} <= names
    assert not [name for name in names if name.startswith(("tests/", "benchmarks/"))]
