"""A close, step by step: what each step writes, what it leaves out, what a second call does, what the database refuses
afterwards, and how an open run is given up. Output: ``close_by_hand.out``.
"""

from __future__ import annotations

from datetime import date

from sqlalchemy import Engine, text
from sqlalchemy.exc import DBAPIError

from examples.ledger import command_line, on_a_fresh_ledger, open_balances, post, shortly_after, show, show_balances
from ledger_db.close.certification import certify_run
from ledger_db.close.counting import count_piece, finish_counting, plan_hold_pieces, plan_pieces
from ledger_db.close.opening import open_close
from ledger_db.close.runs import Run
from ledger_db.close.snapshots import ensure_partition, plan_key_ranges, write_snapshot_batch
from ledger_db.core.calendar import BusinessCalendar
from ledger_db.errors import OutOfOrder, first_line

BEFORE = """
    pay-01   2026-01-31 09:00  @World   bln_ada   250000 USD
    card-01  2026-01-31 18:00  bln_ada  bln_shop   40000 USD INFLIGHT
    wire-01  2026-01-31 19:00  bln_ada  bln_bank   99900 USD QUEUED
    pay-02   2026-02-01 09:00  @World   bln_ada    10000 USD
"""
AFTER_THE_CUT = "tip-01  2026-01-31 23:59  bln_ada  bln_shop  700 USD"
DAY, NEXT_DAY = date(2026, 1, 31), date(2026, 2, 1)
SNAPSHOTS = (
    "SELECT balance_id, balance, credit_balance, debit_balance, inflight_balance FROM ledger_eod.daily_balances "
    "WHERE business_date = '2026-01-31' ORDER BY balance_id"
)


def main(engine: Engine) -> None:
    """Every step of one close, and the beginning of the next."""
    open_balances(engine, "@World", "bln_ada", "bln_shop", "bln_bank")
    post(engine, BEFORE)
    show("balances before, as stored: they have the payment of 2026-02-01; a queued transfer counts nowhere")
    show_balances(engine)
    run = open_day(engine, DAY)
    show(f"\n1 open: {run.name} from {run.opens_at:%F %H:%M} to {run.closes_at:%F %H:%M} UTC; the cut is taken")
    post(engine, AFTER_THE_CUT)
    show("  recorded after the cut, for the same day: tip-01; it is a late arrival of the next close")
    for plan in (plan_pieces, plan_hold_pieces):
        with engine.begin() as connection:
            pieces = plan(connection, run.run_id, piece_size=1000)
        for piece in pieces:
            with engine.begin() as connection:
                count_piece(connection, run.run_id, piece.piece)
            show(f"2 count: {piece} is done")
    with engine.begin() as connection:
        counted = finish_counting(connection, run.run_id)
    show(
        f"  rows: {counted.counted} counted, {counted.settled} settled, {counted.pending} pending; "
        f"exceptions: {counted.exceptions}"
    )
    with engine.begin() as connection:
        ensure_partition(connection, DAY)
        ranges = plan_key_ranges(connection, run.run_id, batch_size=3)
    show(f"3 plan: {', '.join(f'keys {keys.first_key} to {keys.last_key}' for keys in ranges)}")
    for keys in [*ranges, ranges[0]]:
        with engine.begin() as connection:
            written = write_snapshot_batch(connection, run.run_id, keys)
        show(f"4 write: keys {keys.first_key} to {keys.last_key}, {written} rows written")
    for _ in range(2):
        with engine.begin() as connection:
            certified = certify_run(connection, run.run_id)
        show(f"5 certify: {certified.snapshot_count} snapshots, checksum {str(certified.checksum)[:16]}")
    show("\nsnapshots of the close: balance, credits, debits, on hold")
    with engine.connect() as connection:
        for row in connection.execute(text(SNAPSHOTS)):
            show(f"  {row[0]:<14} " + " ".join(f"{amount:>12,}" for amount in row[1:]))
    for refused in ("UPDATE ledger_eod.runs SET checksum = ''", "DELETE FROM ledger_eod.balance_snapshots"):
        try:
            with engine.begin() as connection:
                connection.execute(text(refused))
        except DBAPIError as error:
            show(f"refused: {refused}\n  {first_line(error)}")
    following = open_day(engine, NEXT_DAY)
    try:
        open_day(engine, date(2026, 2, 2))
    except OutOfOrder as error:
        show(f"refused: {error}")
    command_line(engine, "abandon", str(following.run_id), "--yes")
    command_line(engine, "abandon", str(run.run_id))
    show("\nbalances after, as stored: a close changes none; tip-01 did")
    show_balances(engine)


def open_day(engine: Engine, day: date) -> Run:
    """Open the close of a date and take its cut."""
    with engine.begin() as connection:
        return open_close(connection, business_date=day, calendar=BusinessCalendar(), now=shortly_after(day))


if __name__ == "__main__":
    on_a_fresh_ledger(main)
