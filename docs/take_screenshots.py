"""Take the screenshots of the Prefect UI: start ``ledger-eod serve``, then run ``python docs/take_screenshots.py``.

Needs chromium (Debian's package of that name). Shows the newest completed run of each flow, and the form of a
reconstruction that waits for its approval.
"""

from __future__ import annotations

import base64
import json
import shutil
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from websockets.sync.client import connect
from websockets.sync.connection import Connection

FOLDER = Path(__file__).parent / "screenshots"
WIDTH, HEIGHT = 1360, 1000
FLAGS = (
    "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--hide-scrollbars",
    "--disable-background-networking", "--disable-component-update", "--disable-sync", "--remote-debugging-port=0",
    f"--window-size={WIDTH},{HEIGHT}",
)  # fmt: skip
SETTLE_SECONDS = 6  # the time a page gets to load its content
PRESS_RESUME = """
(async () => {
    for (;;) {
        const button = [...document.querySelectorAll('button')].find(each => each.innerText.trim() === 'Resume')
        if (button) return button.click()
        await new Promise(resolve => setTimeout(resolve, 100))
    }
})()
"""


def ask(server: str, path: str, body: dict[str, Any]) -> list[dict[str, Any]]:
    """One filter call of the server's API."""
    request = urllib.request.Request(
        f"{server}/api/{path}", data=json.dumps(body).encode(), headers={"content-type": "application/json"}
    )
    with urllib.request.urlopen(request, timeout=30) as response:
        answer: list[dict[str, Any]] = json.load(response)
    return answer


def newest_run(server: str, flow: str, state: str) -> str:
    """The newest run of a flow in a state."""
    found = ask(
        server,
        "flow_runs/filter",
        {
            "limit": 1,
            "sort": "START_TIME_DESC",
            "flows": {"name": {"any_": [flow]}},
            "flow_runs": {"state": {"name": {"any_": [state]}}},
        },
    )
    if not found:
        raise SystemExit(
            f"no run of {flow} is {state}: ledger-eod serve, ledger-eod close, then a reconstruct-balances/ad-hoc that "
            "was approved and finished, and one that waits for its approval"
        )
    return str(found[0]["id"])


def newest_artifact(server: str, key: str) -> str:
    """The newest artifact whose key begins with this."""
    found = ask(
        server, "artifacts/filter", {"limit": 1, "sort": "CREATED_DESC", "artifacts": {"key": {"like_": f"{key}-%"}}}
    )
    return str(found[0]["id"])


def command(page: Connection, method: str, **parameters: Any) -> dict[str, Any]:
    """Send one command to the page of the browser; returns its answer."""
    page.send(json.dumps({"id": 1, "method": method, "params": parameters}))
    while True:
        answer = json.loads(page.recv(timeout=30))
        if answer.get("id") == 1:
            if "error" in answer or "exceptionDetails" in answer["result"]:
                raise SystemExit(f"the browser refused {method}: {answer}")
            result: dict[str, Any] = answer["result"]
            return result


@contextmanager
def browser_page() -> Iterator[Connection]:
    """A connection to a page of a headless browser, which ends with the block."""
    browser = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if browser is None:
        raise SystemExit("no chromium found: install it, for instance with apt-get install chromium")
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        noted = Path(profile) / "DevToolsActivePort"
        process = subprocess.Popen(
            [browser, *FLAGS, f"--user-data-dir={profile}", "about:blank"],
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        try:
            while not (noted.exists() and noted.read_text().count("\n")):
                time.sleep(0.1)
                if process.poll() is not None:
                    raise SystemExit(f"{browser} ended with exit code {process.returncode}")
            port = noted.read_text().splitlines()[0]
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/json", timeout=30) as response:
                address = next(each["webSocketDebuggerUrl"] for each in json.load(response) if each["type"] == "page")
            with connect(address, max_size=None) as page:
                command(
                    page, "Emulation.setDeviceMetricsOverride", width=WIDTH, height=HEIGHT, deviceScaleFactor=1,
                    mobile=False,
                )  # fmt: skip
                yield page
        finally:
            process.terminate()
            process.wait(timeout=30)


def take(page: Connection, address: str, name: str, press: str | None = None) -> None:
    """Save one page as a PNG; ``press``: a script that presses a button first."""
    command(page, "Page.navigate", url=address)
    time.sleep(SETTLE_SECONDS)
    if press is not None:
        command(page, "Runtime.evaluate", expression=press, awaitPromise=True)
        time.sleep(SETTLE_SECONDS)
    shown = command(page, "Page.captureScreenshot", format="png")
    (FOLDER / f"{name}.png").write_bytes(base64.b64decode(shown["data"]))
    print(FOLDER / f"{name}.png")


def main(server: str = "http://127.0.0.1:4200", *names: str) -> None:
    """Take every screenshot, or only those that are named."""
    flows = {row["id"]: row["name"] for row in ask(server, "flows/filter", {})}
    deployments = {f"{flows[row['flow_id']]}/{row['name']}": row["id"] for row in ask(server, "deployments/filter", {})}
    pages: dict[str, Callable[[], str]] = {
        "deployments": lambda: "deployments",
        "custom-run-form": lambda: f"deployments/deployment/{deployments['snapshot-balances/ad-hoc']}/run",
        "runs": lambda: "runs",
        "finished-run": lambda: f"runs/flow-run/{newest_run(server, 'snapshot-balances', 'Completed')}",
        "totals": lambda: f"artifacts/artifact/{newest_artifact(server, 'totals')}",
        "approval-form": lambda: f"runs/flow-run/{newest_run(server, 'reconstruct-balances', 'Suspended')}",
        "reconstruction": lambda: f"artifacts/artifact/{newest_artifact(server, 'reconstruction')}",
    }
    unknown = set(names) - set(pages)
    if unknown:
        raise SystemExit(f"no screenshot {', '.join(sorted(unknown))}: there are {', '.join(pages)}")
    FOLDER.mkdir(exist_ok=True)
    with browser_page() as page:
        for name, path in pages.items():
            if not names or name in names:
                take(page, f"{server}/{path()}", name, PRESS_RESUME if name == "approval-form" else None)


if __name__ == "__main__":
    main(*sys.argv[1:])
