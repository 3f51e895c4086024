"""Take the pictures of this folder from a running local server: ``ledger-eod serve``, then ``python docs/take_screenshots.py``.

Needs chromium (Debian's package of that name). Looks at the newest finished run of each flow.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tempfile
import urllib.request
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parent / "screenshots"
FLAGS = (
    "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--hide-scrollbars",
    "--disable-background-networking", "--disable-component-update", "--disable-sync", "--window-size=1360,1000",
    "--virtual-time-budget=15000", "--run-all-compositor-stages-before-draw",
)  # fmt: skip


def ask(server: str, path: str, body: dict[str, Any]) -> list[dict[str, Any]]:
    """One filter call of the server's API."""
    request = urllib.request.Request(
        f"{server}/api/{path}", data=json.dumps(body).encode(), headers={"content-type": "application/json"}
    )
    with urllib.request.urlopen(request, timeout=30) as response:
        answer: list[dict[str, Any]] = json.load(response)
    return answer


def take(browser: str, address: str, name: str) -> None:
    """One page as one PNG."""
    with tempfile.TemporaryDirectory() as profile:
        subprocess.run(
            [browser, *FLAGS, f"--user-data-dir={profile}", f"--screenshot={FOLDER / name}.png", address],
            check=True, capture_output=True, timeout=120,
        )  # fmt: skip


def main(server: str = "http://127.0.0.1:4200") -> None:
    """Deployments, the custom-run form, the list of runs, a finished run and its totals."""
    browser = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if browser is None:
        raise SystemExit("no chromium found: install it, for instance with apt-get install chromium")
    FOLDER.mkdir(exist_ok=True)
    deployments = {row["name"]: row["id"] for row in ask(server, "deployments/filter", {})}
    finished = ask(
        server,
        "flow_runs/filter",
        {
            "limit": 1,
            "sort": "END_TIME_DESC",
            "flows": {"name": {"any_": ["snapshot-balances"]}},
            "flow_runs": {"state": {"name": {"any_": ["Completed"]}}},
        },
    )
    if not deployments or not finished:
        raise SystemExit("deploy and close a day first: ledger-eod serve, ledger-eod close")
    totals = ask(
        server,
        "artifacts/filter",
        {"limit": 1, "sort": "CREATED_DESC", "artifacts": {"key": {"like_": "totals-"}}},
    )
    pages = {
        "deployments": "deployments",
        "custom-run-form": f"deployments/deployment/{deployments['ad-hoc']}/run",
        "runs": "runs",
        "finished-run": f"runs/flow-run/{finished[0]['id']}",
        "totals": f"artifacts/artifact/{totals[0]['id']}",
    }
    for name, path in pages.items():
        take(browser, f"{server}/{path}", name)
        print(FOLDER / f"{name}.png")


if __name__ == "__main__":
    main(*sys.argv[1:])
