"""A ledger's table is loaded again without its ids and loses a row. The next close refuses; a new chain is proposed,
compared with the close before it, approved by somebody else, and certified. Output: ``new_chain.out``.
"""

from __future__ import annotations

from datetime import date

from sqlalchemy import Engine

from examples.ledger import figure, on_a_fresh_ledger, open_balances, post, shortly_after, show, sql
from ledger_db.close.driver import close_day, resume_run
from ledger_db.close.new_chain import approve_new_chain, differences_of, open_new_chain
from ledger_db.close.runs import Run
from ledger_db.core.calendar import BusinessCalendar
from ledger_db.errors import NotApproved, TableMadeAnew
from ledger_db.history.balance_at import balance_at
from ledger_db.verification.driver import verify

JANUARY = """
    pay-01   2026-01-30 09:00  @World   bln_ada   250000 USD
    pay-02   2026-01-31 10:00  @World   bln_ada     1000 USD
    rent-01  2026-01-31 11:00  bln_ada  bln_shop   40000 USD
"""
COLUMNS = "transaction_id, source, destination, reference, amount, precise_amount, precision, currency, status"
LOADED_AGAIN = f"""CREATE TABLE public.kept AS SELECT * FROM blnk.transactions;
    ALTER TABLE blnk.transactions DISABLE TRIGGER USER;
    DELETE FROM blnk.transactions;
    INSERT INTO blnk.transactions ({COLUMNS},
        created_at)
    SELECT {COLUMNS},
        created_at FROM public.kept WHERE reference <> 'pay-02';
    ALTER TABLE blnk.transactions ENABLE TRIGGER USER"""  # noqa: S608 - fixed text
DAY, NEXT_DAY = date(2026, 1, 31), date(2026, 2, 1)
REASON = "loaded again after the disk failed; pay-02 was a test"


def main(engine: Engine) -> None:
    """The whole session, printed."""
    open_balances(engine, "@World", "bln_ada", "bln_shop")
    post(engine, JANUARY)
    close_day(engine, DAY, now=shortly_after(DAY))
    show(f"{DAY} is closed; {known(engine, DAY)}")
    sql(engine, LOADED_AGAIN)
    try:
        close_day(engine, NEXT_DAY, now=shortly_after(NEXT_DAY))
    except TableMadeAnew as refusal:
        show(f"\nthe close of {NEXT_DAY} is refused:")
        for sentence in str(refusal).split(": "):
            show(f"  {sentence}")
    run = propose(engine)
    show(f"\nAda proposes a new chain; its first close is {run.name}, without a base: {run.base_run_id}")
    certify(engine, run)
    figures_hash = show_differences(engine, run)
    for person in ("ada", "Grace"):
        with engine.begin() as connection:
            _, decision = approve_new_chain(connection, figures_hash, decided_by=person, channel="example")
        show(f"{person} approves: {decision.decision}{decision.remark and f', {decision.remark}'}")
    certify(engine, run)
    show(f"\nas known now: {known(engine, DAY)}\nas known then: {known(engine, DAY, known_at=1)}")
    following = close_day(engine, date(2026, 2, 2), now=shortly_after(date(2026, 2, 2))).run
    show(f"{following.name} is certified, its base is run {following.base_run_id}")
    checked = verify(engine, scope="checksums")
    left_out = ", ".join(f"{count} {why}" for why, count in checked.compared.rows_left_out.items())
    show(f"checksums: {len(checked.findings)} findings; closes whose rows are not compared: {left_out}")


def propose(engine: Engine) -> Run:
    """Open the first close of a new chain."""
    with engine.begin() as connection:
        return open_new_chain(
            connection, reason=REASON, proposed_by="Ada", calendar=BusinessCalendar(), now=shortly_after(NEXT_DAY)
        )


def certify(engine: Engine, run: Run) -> None:
    """Do what is left of the close."""
    try:
        certified = resume_run(engine, run.run_id).run
    except NotApproved as waiting:
        show(str(waiting).partition(". Hash")[0])
    else:
        show(f"{certified.name} is certified")


def show_differences(engine: Engine, run: Run) -> str:
    """Print what the new chain differs by; returns the hash to approve."""
    with engine.connect() as connection:
        for each in differences_of(connection, run.run_id):
            was, now = each.previous.credit - each.previous.debit, each.present.credit - each.present.debit
            show(f"  {each.balance_id}: {figure(was)} in the last close, {figure(now)} now, {figure(now - was)}")
    with engine.connect() as connection:
        (row,) = connection.exec_driver_sql("SELECT figures_hash FROM ledger_eod.new_chains")
    return str(row.figures_hash)


def known(engine: Engine, day: date, known_at: int | None = None) -> str:
    """A balance at the end of a date."""
    with engine.connect() as connection:
        at = BusinessCalendar().closes_at(day)
        found = balance_at(connection, "bln_ada", at, known_at=known_at)
    return f"bln_ada has {figure(found.balance)} at the end of {day}"


if __name__ == "__main__":
    on_a_fresh_ledger(main)
