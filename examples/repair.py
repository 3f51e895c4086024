"""Somebody edits a stored balance with SQL. Verification finds it and names the cause; a correction is proposed,
approved by somebody else, and made; the next verification is clean. Output: ``repair.out``.
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
from ledger_db.close.totals import totals_of
from ledger_db.correction.driver import ReconstructionReport, reconstruct
from ledger_db.evidence.approvals import decide
from ledger_db.verification.driver import verify

JANUARY = """
    salary-01  2026-01-29 09:00  @World     bln_ada     250000 USD
    salary-02  2026-01-29 09:00  @World     bln_grace   310000 USD
    salary-03  2026-01-29 09:00  @World     bln_edsger  280000 USD
    salary-04  2026-01-29 09:00  @World     bln_barbara 325000 USD
    rent-01    2026-01-30 08:00  bln_ada    bln_house   120000 USD
    rent-02    2026-01-30 08:00  bln_edsger bln_house   110000 USD
    lunch-01   2026-01-31 12:10  bln_grace  bln_cafe      1450 USD
    lunch-02   2026-01-31 12:20  bln_ada    bln_cafe      1275 USD
    fee-01     2026-01-31 23:00  bln_house  @Fees          500 USD
    card-01    2026-01-31 23:30  bln_grace  bln_shop     40000 USD INFLIGHT
"""
NAMES = ("@World", "@Fees", "bln_ada", "bln_grace", "bln_edsger", "bln_barbara", "bln_house", "bln_cafe", "bln_shop")
EDIT = """UPDATE blnk.balances SET credit_balance = credit_balance + 50000, balance = balance + 50000
    WHERE balance_id = 'bln_grace'"""


DAY = date(2026, 1, 31)
REASON = "edited by hand, no posting supports it"


def main(engine: Engine) -> None:
    """The whole session, printed."""
    open_balances(engine, *NAMES, "bln_savings")
    post(engine, JANUARY)
    run = close_day(engine, DAY, now=shortly_after(DAY)).run
    with engine.connect() as connection:
        for total in totals_of(connection, run.run_id):
            show(
                f"{run.name} certified: {total.balance_count} balances, {total.currency} credits "
                f"{figure(total.credit_balance)}, debits {figure(total.debit_balance)}, difference {total.difference}"
            )
    show_balances(engine)
    sql(engine, EDIT)
    _verify(engine)

    show("\nAda proposes to correct every balance with a discrepancy; nothing is written")
    report = propose(engine)
    proposal = report.reconstruction
    for result in report.proposed:
        show(
            f"  {result.balance_id}: stored {figure(result.previous.balance)}, its postings prove "
            f"{figure(result.recalculated.balance)}, difference {figure(result.difference)}: {result.cause}"
        )
    show(f"  needs an approval: {'; '.join(proposal.approval_reasons or [])}")
    show(f"  figures {str(proposal.figures_hash)[:16]}")
    for name in ("ada", "Grace"):
        with engine.begin() as connection:
            approval = decide(connection, proposal, decision="approved", decided_by=name, channel="example")
        show(f"{name} approves these figures: {approval.decision}{approval.remark and f', {approval.remark}'}")
    for result in propose(engine).results:
        show(f"  {result.balance_id}: {result.verdict}, {result.remark}")
    show_balances(engine)
    _verify(engine)
    command_line(engine, "balance-at", "bln_grace", "--at", "2026-01-31")


def propose(engine: Engine) -> ReconstructionReport:
    """Propose to correct every balance with a discrepancy, and correct it where that is approved already."""
    return reconstruct(engine, selection="discrepancies", mode="apply", reason=REASON, proposed_by="Ada")


def _verify(engine: Engine) -> None:
    report = verify(engine, scope="since-close")
    done, found = report.verification, report.discrepancies
    opened = f"{done.finding_count} discrepancy, {done.opened_count} new" if found else "nothing found"
    show(f"\n{done.name}: {done.balance_count} balances, {opened}")
    for each in found:
        drift = ", ".join(f"{name} {amount}" for name, amount in each.evidence["drift"].items() if amount != "0")
        show(f"  {each.cause}: {each.subject}, {figure(each.gross_difference)} {each.currency}, action: {each.action}")
        show(f"  the close of {each.evidence['close']} and the postings agree; the stored row differs by {drift}")


if __name__ == "__main__":
    on_a_fresh_ledger(main)
