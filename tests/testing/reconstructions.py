"""A whole reconstruction in the tests' words: proposed, approved, applied, each step in a transaction of its own."""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal

from ledger_db.correction import driver
from ledger_db.correction.corrections import Correction, correct_balance, list_corrections
from ledger_db.correction.proposals import begin_applying
from ledger_db.correction.recalculation import Outcome, Result
from ledger_db.correction.reconstructions import Mode, Reconstruction, Selection, results_of
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
    return driver.propose(
        books.engine, [books.id_of(name) for name in names], mode=mode, selection=selection, reason=reason,
        proposed_by=proposed_by, flow_run_id=flow_run_id, limits=limits or {}, balance_limit=balance_limit,
    )  # fmt: skip


def approve(books: Books, proposal: Reconstruction, *, by: str = APPROVER) -> Approval:
    """Approve a proposal's figures, or be refused."""
    with books.engine.begin() as connection:
        return decide(connection, proposal, decision="approved", decided_by=by, channel="test")


def begin(books: Books, proposal: Reconstruction, *, by: str = APPROVER) -> Reconstruction:
    """Approve a proposal and let its corrections begin."""
    approval = approve(books, proposal, by=by)
    with books.engine.begin() as connection:
        return begin_applying(connection, proposal.reconstruction_id, approval.approval_id)


def correct(books: Books, proposal: Reconstruction, name: str) -> Outcome:
    """Correct one balance of a reconstruction that is being applied."""
    with books.engine.begin() as connection:
        return correct_balance(connection, proposal.reconstruction_id, books.id_of(name))


def reconstruct(books: Books, *names: str, selection: Selection = "given") -> dict[str, Result]:
    """Propose, approve and apply; what became of each balance, by its id."""
    result = driver.reconstruct(
        books.engine, [books.id_of(name) for name in names], mode="apply", selection=selection,
        reason="the statement says so", proposed_by=PROPOSER, approved_by=APPROVER, limits={}, balance_limit=10,
    )  # fmt: skip
    return {each.balance_id: each for each in result.results}


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
