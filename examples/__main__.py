"""Run every example and write its output beside it: ``python -m examples``.

A change to an output is a change to review.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

FOLDER = Path(__file__).parent
NAMES = tuple(sorted(output.stem for output in FOLDER.glob("*.out")))


def main() -> None:
    """Write each ``.out`` file again; one that fails leaves its file as it is."""
    for name in NAMES:
        program = [sys.executable, "-m", f"examples.{name}"]
        answer = subprocess.run(program, capture_output=True, check=True, cwd=FOLDER.parent)  # noqa: S603
        (FOLDER / f"{name}.out").write_bytes(answer.stdout)


if __name__ == "__main__":
    main()
