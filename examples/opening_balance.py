"""A balance was moved here with an amount and without its old transactions. No posting proves it, so it is declared.
Output: ``opening_balance.out``.
"""

from __future__ import annotations

from datetime import date

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
    sql,
)
from ledger_db.close.driver import close_day
from ledger_db.verification.driver import verify

PAYMENTS = "pay-01  2026-01-31 09:00  @World  bln_ada  25000 USD"
MOVED_HERE = """UPDATE blnk.balances SET credit_balance = credit_balance + 180000, balance = balance + 180000
    WHERE balance_id = 'bln_ada'"""
DECLARE = ("declare-opening", "bln_ada", "--as", "Grace", "--reason", "moved from the old system, statement 2025-12")

DAY = date(2026, 1, 31)


def main(engine: Engine) -> None:
    """Found, declared, and from then on proved."""
    open_balances(engine, "@World", "bln_ada")
    sql(engine, MOVED_HERE)
    post(engine, PAYMENTS)
    show("\nbalances before, as stored")
    show_balances(engine)
    _verify(engine)
    command_line(engine, *DECLARE)
    _verify(engine)
    command_line(engine, *DECLARE, "--yes")
    _verify(engine)
    run = close_day(engine, DAY, now=shortly_after(DAY)).run
    show(f"\n{run.name} is a sum of postings and does not include the declared amount:")
    command_line(engine, "balance-at", "bln_ada", "--at", "2026-01-31")
    show("\nbalances after, as stored: a declaration changes none")
    show_balances(engine)


def _verify(engine: Engine) -> None:
    report = verify(engine, scope="from-genesis")
    done, found = report.verification, report.discrepancies
    show(f"\n{done.name}: {done.balance_count} balances, {'1 discrepancy' if found else 'nothing found'}")
    for each in found:
        show(f"  {each.cause}: {each.subject}, {figure(each.gross_difference)} {each.currency}, action: {each.action}")


if __name__ == "__main__":
    on_a_fresh_ledger(main)
