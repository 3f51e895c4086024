"""(d) Peak memory of the worker process: flat from 100,000 to 1,000,000 balances."""

from __future__ import annotations

import re
import subprocess
import sys
from datetime import date, timedelta
from typing import Any

from benchmarks.ledgers import bench_ledger

FIRST_DATE = date(2026, 1, 1)

WORKER = """
import resource, sys
from datetime import date
from flows.snapshot_balances import SnapshotResult, snapshot_balances
result = snapshot_balances(date.fromisoformat(sys.argv[1]), "close", 1000)
assert isinstance(result, SnapshotResult), result
print("peak_kib", resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""


def measure(sizes: tuple[int, ...]) -> list[dict[str, Any]]:
    """Peak resident memory of one process that closes one date through the flow, by number of balances."""
    from deployments.orchestrator.server import environment, local_server
    from ledger_db.settings import get_settings

    rows: list[dict[str, Any]] = []
    with local_server() as api_url:
        for balances in sizes:
            with bench_ledger(
                "memory", balances=balances, transactions=balances, first_date=FIRST_DATE, days=1
            ) as ledger:
                ledger.close(FIRST_DATE)
                ledger.add_transactions(balances // 10, first_date=FIRST_DATE + timedelta(days=1), days=1)
                variables = environment(get_settings(), api_url) | {
                    "LEDGER_DATABASE_URL": ledger.engine.url.render_as_string(hide_password=False)
                }
                output = subprocess.run(
                    [sys.executable, "-c", WORKER, str(FIRST_DATE + timedelta(days=1))],
                    env=variables, capture_output=True, text=True, check=True, timeout=900,
                ).stdout  # fmt: skip
                peak = re.search(r"peak_kib (\d+)", output)
                assert peak is not None, output
                rows.append({"balances": balances, "peak_mib": round(int(peak.group(1)) / 1024)})
    for row in rows:
        row["against_smallest"] = round(row["peak_mib"] / rows[0]["peak_mib"], 2)
    return rows
