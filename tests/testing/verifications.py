"""A whole verification in the tests' words, and what it found."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from ledger_db.server.connections import one_instant
from ledger_db.verification import driver
from ledger_db.verification.causes import Finding
from ledger_db.verification.discrepancies import Discrepancy
from ledger_db.verification.drift import verify_batch
from ledger_db.verification.sweeps import Scope, Verification, collect_postings, plan_balance_ranges
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
    result = driver.verify(
        books.engine, scope=scope, ledger_id=ledger_id, currency=currency, balance_ids=balance_ids,
        batch_size=batch_size,
    )  # fmt: skip
    return Sweep(result.verification, result.findings, result.discrepancies)


def judge_all(books: Books, opened: Verification) -> list[Finding]:
    """What an open verification finds in the stored rows; nothing is stored and it stays open."""
    with books.engine.begin() as connection:
        collect_postings(connection, opened.verification_id)
        ranges = plan_balance_ranges(connection, opened.verification_id, batch_size=2)
    findings: list[Finding] = []
    for keys in ranges:
        with one_instant(books.engine) as connection:
            findings += verify_batch(connection, opened.verification_id, keys).findings
    return findings


def causes(found: Iterable[Discrepancy]) -> set[tuple[str, str]]:
    """Causes with what they are about; each finding once."""
    pairs = [(each.cause, each.subject) for each in found]
    assert len(pairs) == len(set(pairs)), pairs
    return set(pairs)


def findings_by_name(found: Iterable[Discrepancy]) -> dict[str, Discrepancy]:
    return {each.subject: each for each in found}
