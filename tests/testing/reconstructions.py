"""A whole reconstruction in the tests' words: proposed, approved, applied, each step in a transaction of its own."""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal

from sqlalchemy import text

from ledger_db.correction.corrections import Correction, correct_balance, list_corrections
from ledger_db.correction.proposals import begin_applying, seal
from ledger_db.correction.recalculation import Result, Verdict, examine
from ledger_db.correction.reconstructions import (
    Mode,
    Reconstruction,
    Selection,
    base_of,
    end_reconstruction,
    open_reconstruction,
    results_of,
    select_balances,
    store_result,
)
from ledger_db.evidence.approvals import Approval, decide
from tests.testing.books import Books

PROPOSER, APPROVER = "Ada", "Grace"
NO_LIMIT = Decimal(10) ** 60


def propose(
    books: Books,
    *names: str,
    mode: Mode = "apply",
    selection: Selection = "given",
    reason: str = "the statement says so",
    proposed_by: str = PROPOSER,
    flow_run_id: str | None = None,
    limits: Mapping[str, Decimal] | None = None,
    balance_limit: int = 10,
) -> Reconstruction:
    """Recalculate balances and seal what is to be corrected."""
    with books.engine.begin() as connection:
        opened = open_reconstruction(
            connection, mode=mode, selection=selection, reason=reason, proposed_by=proposed_by, flow_run_id=flow_run_id
        )
        balance_ids = select_balances(connection, selection, [books.id_of(name) for name in names])
    for balance_id in balance_ids:
        with books.engine.begin() as connection:
            connection.execute(text("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY"))
            result = examine(connection, balance_id, base_of(connection, opened))
        with books.engine.begin() as connection:
            store_result(connection, opened.reconstruction_id, result)
    with books.engine.begin() as connection:
        return seal(connection, opened.reconstruction_id, limits=limits or {}, balance_limit=balance_limit)


def approve(books: Books, proposal: Reconstruction, *, by: str = APPROVER) -> Approval:
    """Approve a proposal's figures, or be refused."""
    with books.engine.begin() as connection:
        return decide(connection, proposal, decision="approved", decided_by=by, channel="test")


def begin(books: Books, proposal: Reconstruction, *, by: str = APPROVER) -> Reconstruction:
    """Approve a proposal and let its corrections begin."""
    approval = approve(books, proposal, by=by)
    with books.engine.begin() as connection:
        return begin_applying(connection, proposal.reconstruction_id, approval.approval_id)


def correct(books: Books, proposal: Reconstruction, name: str) -> Verdict:
    """Correct one balance of a reconstruction that is being applied."""
    with books.engine.begin() as connection:
        return correct_balance(connection, proposal.reconstruction_id, books.id_of(name))


def reconstruct(books: Books, *names: str, selection: Selection = "given") -> dict[str, Result]:
    """Propose, approve and apply; what became of each balance, by its id."""
    proposal = propose(books, *names, selection=selection)
    begin(books, proposal)
    for result in results(books, proposal):
        if result.verdict == "correct" or selection == "requested":
            correct(books, proposal, result.balance_id)
    with books.engine.begin() as connection:
        end_reconstruction(connection, proposal.reconstruction_id)
    return {result.balance_id: result for result in results(books, proposal)}


def results(books: Books, proposal: Reconstruction) -> list[Result]:
    with books.engine.connect() as connection:
        return results_of(connection, proposal.reconstruction_id)


def verdicts(books: Books, proposal: Reconstruction) -> dict[str, str]:
    """What became of each balance, by its id."""
    return {result.balance_id: result.verdict for result in results(books, proposal)}


def log(books: Books) -> list[Correction]:
    with books.engine.connect() as connection:
        return list_corrections(connection)


def tamper(books: Books, name: str, column: str = "credit_balance", by: int = 500) -> None:
    """Change one amount of a stored row behind the ledger's back."""
    books.execute(
        f"UPDATE blnk.balances SET {column} = {column} + :by WHERE balance_id = :balance_id",
        by=by, balance_id=books.id_of(name),
    )  # fmt: skip
