"""A whole verification in the tests' words: every batch, one after the other, and what was found."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from decimal import Decimal

from sqlalchemy import text

from ledger_db.close.row_checksums import closes_to_check
from ledger_db.server.catalogue import system_identifier
from ledger_db.verification.causes import Finding
from ledger_db.verification.closed_dates import check_close
from ledger_db.verification.discrepancies import Discrepancy, close_unseen, list_discrepancies, record_findings
from ledger_db.verification.drift import BatchVerdict, check_transactions, verify_batch
from ledger_db.verification.sweeps import (
    Scope,
    Tally,
    Verification,
    collect_postings,
    end_verification,
    open_verification,
    plan_balance_ranges,
)
from tests.testing.books import Books


@dataclass(frozen=True)
class Sweep:
    """A verification that ended, its findings, and the open discrepancies it saw."""

    verification: Verification
    findings: list[Finding]
    found: list[Discrepancy]


def verify(
    books: Books,
    scope: Scope,
    *,
    batch_size: int = 2,
    ledger_id: str | None = None,
    currency: str | None = None,
    balance_ids: Sequence[str] | None = None,
) -> Sweep:
    """Verify the books, each step in a database transaction of its own."""
    findings: list[Finding] = []
    balances, gross = 0, Decimal(0)
    with books.engine.begin() as connection:
        opened = open_verification(
            connection, scope=scope, ledger_id=ledger_id, currency=currency, balance_ids=balance_ids
        )
    verification_id = opened.verification_id
    if scope == "checksums":
        with books.engine.begin() as connection:
            for run_id in closes_to_check(connection, system_identifier(connection)):
                findings += check_close(connection, run_id).findings
    else:
        with books.engine.begin() as connection:
            collect_postings(connection, verification_id)
        with books.engine.begin() as connection:
            findings += check_transactions(connection, verification_id)
        for verdict in verdicts(books, verification_id, batch_size):
            findings += verdict.findings
            balances += verdict.balance_count
            gross += verdict.gross_volume
    with books.engine.begin() as connection:
        recorded = record_findings(connection, opened, findings)
        closed = close_unseen(connection, opened)
        ended = end_verification(
            connection,
            verification_id,
            Tally(
                balance_count=balances, finding_count=len(findings), opened_count=recorded.opened_count,
                gross_volume=gross, unexplained_volume=sum((each.unexplained_volume for each in findings), Decimal(0)),
            ),
            closed_count=closed,
        )  # fmt: skip
    with books.engine.connect() as connection:
        return Sweep(ended, findings, list_discrepancies(connection, verification_id=verification_id))


def verdicts(books: Books, verification_id: int, batch_size: int = 2) -> Iterator[BatchVerdict]:
    """Every batch of a verification whose sums are collected, each at one instant of its own."""
    with books.engine.begin() as connection:
        ranges = plan_balance_ranges(connection, verification_id, batch_size=batch_size)
    for keys in ranges:
        with books.engine.begin() as connection:
            connection.execute(text("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY"))
            yield verify_batch(connection, verification_id, keys)


def judge_all(books: Books, opened: Verification) -> list[Finding]:
    """What an open verification finds in the stored rows; nothing is stored and it stays open."""
    with books.engine.begin() as connection:
        collect_postings(connection, opened.verification_id)
    return [finding for verdict in verdicts(books, opened.verification_id) for finding in verdict.findings]


def causes(found: Iterable[Discrepancy]) -> set[tuple[str, str]]:
    """Causes with what they are about; each finding once."""
    pairs = [(each.cause, each.subject) for each in found]
    assert len(pairs) == len(set(pairs)), pairs
    return set(pairs)


def findings_by_name(found: Iterable[Discrepancy]) -> dict[str, Discrepancy]:
    return {each.subject: each for each in found}
