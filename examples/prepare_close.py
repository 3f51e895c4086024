"""A date counted in advance: what the close takes over, and what it counts again. Output: ``prepare_close.out``."""

from __future__ import annotations

from datetime import UTC, date, datetime

from sqlalchemy import Engine, text

from examples.ledger import figure, on_a_fresh_ledger, open_balances, post, shortly_after, show, sql
from ledger_db.books.recording import Movement, record_many
from ledger_db.close.driver import close_day
from ledger_db.close.preparing import prepare_close
from ledger_db.core.calendar import BusinessCalendar

DAY, NEXT_DAY = date(2026, 1, 31), date(2026, 2, 1)
PIECES = (
    "SELECT work, first_key, last_key, counted_count FROM ledger_eod.run_pieces "
    "WHERE run_id = :run AND work <> 'holds' ORDER BY first_key"
)
TOTALS = "SELECT credit_balance, debit_balance FROM ledger_eod.run_totals WHERE run_id = :run"


def main(engine: Engine) -> None:
    """Three rounds, one edit, one close."""
    open_balances(engine, "@World", "bln_ada")
    post(engine, "pay-01  2026-01-31 09:00  @World  bln_ada  100 USD")
    close_day(engine, DAY, calendar=BusinessCalendar(), now=shortly_after(DAY))
    for hour in (8, 12, 16):
        record(engine, hour, 2000)
        preparation = prepare_close(
            engine, calendar=BusinessCalendar(), now=datetime(2026, 2, 1, hour, 50, tzinfo=UTC)
        )  # fmt: skip
        for run, pieces in preparation.work:
            show(f"{hour}:50 {run.name}: {', '.join(map(str, pieces))}")
    record(engine, 20, 500)
    show("20:00 five hundred more, which nothing has counted")
    sql(engine, "ALTER TABLE blnk.transactions DISABLE TRIGGER USER")
    sql(engine, "UPDATE blnk.transactions SET description = 'of no account' WHERE reference = '8-00007'")
    sql(engine, "UPDATE blnk.transactions SET effective_date = '2026-01-31' WHERE reference = '12-00007'")
    run = close_day(engine, NEXT_DAY, calendar=BusinessCalendar(), now=shortly_after(NEXT_DAY)).run
    show(f"\n{run.name} is {run.status}; its pieces:")
    with engine.connect() as connection:
        for work, first_key, last_key, counted in connection.execute(text(PIECES), {"run": run.run_id}):
            show(f"  {work:<8}  keys {first_key} to {last_key}: {figure(counted)} rows")
        credit, debit = connection.execute(text(TOTALS), {"run": run.run_id}).one()
    show(f"credits {figure(credit)}, debits {figure(debit)}")


def record(engine: Engine, hour: int, count: int) -> None:
    """So many payments of one dollar."""
    with engine.begin() as connection:
        record_many(
            connection,
            [
                Movement(
                    source="bln_world", destination="bln_ada", amount_minor=100, currency="USD",
                    reference=f"{hour}-{number:05}", transaction_id=f"txn_{hour}_{number}",
                    created_at=datetime(2026, 2, 1, hour, tzinfo=UTC),
                )
                for number in range(count)
            ],
        )  # fmt: skip


if __name__ == "__main__":
    on_a_fresh_ledger(main)
