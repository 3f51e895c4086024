"""An entry for a day arrives after that day was closed. What was known at the close stays as it was; what is known now
has the entry; the next close collects it as a late arrival. Output: ``late_entry.out``.
"""

from __future__ import annotations

from datetime import date
from pathlib import Path

from sqlalchemy import Engine

from examples.ledger import (
    command_line,
    figure,
    on_a_fresh_ledger,
    open_balances,
    post,
    shortly_after,
    show,
    show_balances,
)
from ledger_db.close.activity import late_arrivals
from ledger_db.close.driver import close_day
from ledger_db.close.runs import find_run
from ledger_db.close.totals import totals_of

#: One row, effective on 2026-01-30, recorded on 2026-02-01.
LATE = Path(__file__).with_suffix(".csv")

BEFORE = """
    salary-01  2026-01-30 09:00  @World   bln_ada    250000 USD
    rent-01    2026-01-30 10:00  bln_ada  bln_house  120000 USD
    lunch-01   2026-01-31 12:20  bln_ada  bln_cafe     1275 USD
    rent-02    2026-02-15 10:00  bln_ada  bln_house  120000 USD
"""


def main(engine: Engine) -> None:
    """Close two days, import the entry, close the third."""
    open_balances(engine, "@World", "bln_ada", "bln_house", "bln_cafe")
    post(engine, BEFORE)
    show("balances as stored; the rent of 2026-02-15 is in them, and in no close before that of its day")
    show_balances(engine)
    _close(engine, date(2026, 1, 30))
    _close(engine, date(2026, 1, 31))

    command_line(engine, "import", f"{LATE.parent.name}/{LATE.name}")
    show("\nbln_ada at the close of 2026-01-30, as known at that close and as known now")
    command_line(engine, "balance-at", "bln_ada", "--at", "2026-01-30", "--known-at", "2026-01-30")
    command_line(engine, "balance-at", "bln_ada", "--at", "2026-01-30")
    show()
    _close(engine, date(2026, 2, 1))
    show(
        "\nthe same two questions after that close, with the same answers, the second one summed from the first posting"
    )
    command_line(engine, "balance-at", "bln_ada", "--at", "2026-01-30", "--known-at", "2026-01-30")
    command_line(engine, "balance-at", "bln_ada", "--at", "2026-01-30", "--from-source")
    show("\nbalances as stored")
    show_balances(engine)


def _close(engine: Engine, day: date) -> None:
    run = close_day(engine, day, now=shortly_after(day)).run
    with engine.connect() as connection:
        (total,) = totals_of(connection, run.run_id)
        late = late_arrivals(connection, run.run_id)
        base = "no close before" if run.base_run_id is None else f"base {find_run(connection, run.base_run_id).name}"
    show(
        f"{run.name}, {base}: {run.snapshot_count} snapshots, {total.currency} credits {figure(total.credit_balance)}, "
        f"debits {figure(total.debit_balance)}, difference {total.difference}, late arrivals: {len(late) or 'none'}"
    )
    for each in late:
        show(f"  {each.balance_id} for {each.effective_date}: {each.effect:+,} {each.currency}")


if __name__ == "__main__":
    on_a_fresh_ledger(main)
