"""Run the benchmarks: prints a table for each and writes ``benchmarks/results.json``."""

from __future__ import annotations

import json
import os
import platform
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from benchmarks import (
    correction,
    counting,
    growth,
    heavy_day,
    history,
    indexes,
    keys,
    memory,
    preparing,
    snapshot,
    verification,
    years,
)
from ledger_db.settings import get_settings

RESULTS = Path(__file__).parent / "results.json"
NAMES = (
    "snapshot", "counting", "heavy-day", "preparing", "growth", "history", "years", "keys", "standing-orders",
    "indexes", "memory", "genesis", "since-close", "correction",
)  # fmt: skip

console = Console()


def main(
    only: Annotated[list[str] | None, typer.Option(help=f"which to run: {', '.join(NAMES)}; default all")] = None,
    small: Annotated[bool, typer.Option(help="a hundredth of the size, to see that they run")] = False,
    rounds: Annotated[int, typer.Option(min=1, help="rounds of which the median is shown")] = 5,
) -> None:
    """Measure the close and history on generated ledgers, in databases of their own that are dropped afterwards."""
    unknown = set(only or ()) - set(NAMES)
    if unknown:
        raise typer.BadParameter(f"unknown benchmark {', '.join(sorted(unknown))}; there are {', '.join(NAMES)}")
    scale = 100 if small else 1
    results: dict[str, Any] = json.loads(RESULTS.read_text()) if RESULTS.exists() and not small else {}
    for name in NAMES:
        if only and name not in only:
            continue
        console.print(f"[bold]{name}[/bold] …")
        if name == "snapshot":
            rows = [row for size in (200_000, 1_000_000) for row in snapshot.measure(size // scale, rounds=rounds)]
        elif name == "counting":
            rows = counting.measure(
                [(1_000_000 // scale, 200_000 // scale), (200_000 // scale, 50_000 // scale)], rounds=min(rounds, 3)
            )
        elif name == "heavy-day":
            rows = heavy_day.measure(
                balances=200_000 // scale, transactions=5_000_000 // scale,
                piece_size=get_settings().piece_size // scale,
            )  # fmt: skip
        elif name == "preparing":
            rows = preparing.measure(1_000_000 // scale, 200_000 // scale, rounds=min(rounds, 3))
        elif name == "growth":
            rows = growth.measure(
                balances=100_000 // scale, transactions_per_day=50_000 // scale, history=500_000 // scale,
                rounds=2 * rounds + 1,
            )  # fmt: skip
        elif name == "history":
            rows = history.measure(
                balances=1_000_000 // scale, transactions=10_000_000 // scale, calls=2_000 if not small else 200
            )
        elif name == "years":
            rows = years.measure(
                balances=1_000 // min(scale, 10), transactions_per_day=400 // min(scale, 10),
                years=(1, 10) if not small else (0.1, 0.2), calls=2_000 if not small else 200,
            )  # fmt: skip
        elif name == "keys":
            rows = keys.measure_year(balances=200_000 // scale, transactions_per_day=1_000_000 // scale)
        elif name == "standing-orders":
            rows = keys.measure_orders(
                balances=20_000 // scale, transactions_per_day=5_000 // scale, orders=10_000 // scale
            )
        elif name == "indexes":
            rows = indexes.measure(balances=200_000 // scale, transactions=200_000 // scale, rounds=rounds)
        elif name == "genesis":
            rows = verification.from_genesis(balances=200_000 // scale, transactions=2_000_000 // scale, rounds=rounds)
        elif name == "since-close":
            rows = verification.since_close(
                balances=100_000 // scale, transactions_per_day=50_000 // scale, history=500_000 // scale,
                rounds=2 * rounds + 1,
            )  # fmt: skip
        elif name == "correction":
            rows = correction.measure(
                balances=100_000 // scale, transactions=1_000_000 // scale, hot=1_000_000 // scale,
                ordinary=1_000 // scale, rounds=rounds,
            )  # fmt: skip
        else:
            rows = memory.measure((100_000 // scale, 1_000_000 // scale))
        _show(name, rows)
        results[name] = {
            "rows": rows,
            "measured_on": datetime.now(UTC).date().isoformat(),
            "machine": f"{os.cpu_count()} cores, {platform.machine()}, Python {platform.python_version()}",
        }
        if not small:
            RESULTS.write_text(json.dumps(results, indent=2, ensure_ascii=False) + "\n")


def _show(name: str, rows: list[dict[str, Any]]) -> None:
    table = Table(title=name)
    for column in rows[0]:
        table.add_column(column.replace("_", " "), justify="right")
    for row in rows:
        table.add_row(*(_shown(value) for value in row.values()))
    console.print(table)


def _shown(value: Any) -> str:
    if value is None:
        return ""
    return f"{value:,}" if isinstance(value, int) else str(value)


if __name__ == "__main__":
    typer.run(main)
