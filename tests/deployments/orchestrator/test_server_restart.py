"""Scenario 11 with the orchestrator as the victim: the Prefect server is killed while a close is at work."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from deployments.orchestrator.server import environment, free_port, local_server, prefect_folder
from ledger_db.close.runs import find_run
from ledger_db.settings import Settings
from tests.testing import PROJECT
from tests.testing.books import Books
from tests.testing.flow_runs import leave_rows_alone, on_each_row
from tests.testing.oracle import assert_proved

CLOSE = (
    "from datetime import date; from flows.snapshot_balances import snapshot_balances; "
    "state = snapshot_balances(date(2025, 1, 31), 'close', 2, return_state=True); print(state.name)"
)


def close_through(api_url: str, books: Books, settings: Settings) -> subprocess.Popen[str]:
    variables = environment(settings, api_url) | {
        "LEDGER_DATABASE_URL": books.ledger.url.render_as_string(hide_password=False),
        "LEDGER_WORKERS": "2",
        "PREFECT_CLIENT_MAX_RETRIES": "2",
    }
    return subprocess.Popen(
        [sys.executable, "-c", CLOSE], env=variables, cwd=PROJECT, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
    )  # fmt: skip


def test_the_close_outlives_a_killed_prefect_server(books: Books, tmp_path: Path) -> None:
    """Whether the worker got through without its server or crashed with it: one run, one cut, proved figures."""
    books.post("""
        recorded          source  destination  amount
        2025-01-31 09:00  @world  a            1.00 USD
        2025-01-31 09:00  @world  b            2.00 USD
        2025-01-31 09:00  a       c            0.40 USD
        2025-01-31 09:00  b       d            0.50 USD
    """)
    on_each_row(books, "PERFORM pg_sleep(0.5);")
    settings = Settings(data_folder=tmp_path)
    port = free_port()
    with local_server(settings, port=port) as api_url:
        worker = close_through(api_url, books, settings)
        deadline = time.monotonic() + 60
        while books.rows("SELECT count(*) FROM ledger_eod.activity") == [(0,)]:
            assert worker.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.02)
        ((run_id, cut),) = books.rows("SELECT run_id, cut::text FROM ledger_eod.runs")
        server = json.loads((prefect_folder(settings) / "server.json").read_text())["pid"]
        os.killpg(server, signal.SIGKILL)
        try:
            worker.communicate(timeout=60)
        except subprocess.TimeoutExpired:  # it waits for its server: the restart is the next step anyhow
            worker.kill()
            worker.communicate()
    leave_rows_alone(books)
    with local_server(settings, port=port) as api_url:
        again = close_through(api_url, books, settings)
        output, _ = again.communicate(timeout=90)
    assert output.split()[-1] in ("Completed", "NothingToDo")
    assert books.rows("SELECT run_id, cut::text, status::text FROM ledger_eod.runs") == [(run_id, cut, "certified")]
    with books.engine.connect() as connection:
        run = find_run(connection, run_id)
    assert_proved(books, run)
