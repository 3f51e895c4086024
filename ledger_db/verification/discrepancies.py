"""Discrepancies: findings as rows that stay, one for as long as the same difference is seen night after night."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, datetime
from decimal import Decimal
from typing import Any, Final

from sqlalchemy import Connection, text

from ledger_db.close.row_checksums import closes_to_check
from ledger_db.core.amounts import plain
from ledger_db.postings.rules import statement
from ledger_db.server.catalogue import system_identifier
from ledger_db.verification.causes import Finding
from ledger_db.verification.sweeps import Scope, Verification

PARTS: Final = ("credit_balance", "debit_balance", "inflight_credit_balance", "inflight_debit_balance")

#: Which open discrepancies a scope would see if they were still there. Since the close a stored row that agrees with
#: the close's snapshot is right; only the raw rows from the first one on can say that the snapshot is not. Of
#: transactions it looks at the newest, and an early commit is always one of those. What was said of closes is seen only
#: where their cuts can still be told: not in a copy restored into another cluster.
SEEN_BY: Final[dict[Scope, str]] = {
    "since-close": "(known.balance_key IS NOT NULL OR (known.cause = 'early_commit' AND :unrestricted)) "
    "AND known.business_date IS NULL AND known.cause <> 'row_edited_or_removed'",
    "from-genesis": "(known.balance_key IS NOT NULL OR (known.transaction_key IS NOT NULL AND :unrestricted)) "
    "AND known.business_date IS NULL AND (known.cause <> 'row_edited_or_removed' OR EXISTS ("
    "SELECT FROM ledger_eod.verifications AS seen "
    "JOIN ledger_eod.runs AS seen_base ON seen_base.run_id = seen.base_run_id "
    "JOIN ledger_eod.runs AS base ON base.genesis_run_id = seen_base.genesis_run_id "
    "WHERE seen.verification_id = known.last_verification_id AND base.run_id = :base_run_id))",
    "checksums": "known.business_date IS NOT NULL "
    "AND CAST(known.evidence ->> 'run_id' AS bigint) = ANY(CAST(:checked_run_ids AS bigint []))",
}


@dataclass(frozen=True)
class Recorded:
    """How many findings opened a discrepancy, and how many saw an open one again."""

    opened_count: int
    seen_count: int


@dataclass(frozen=True)
class Discrepancy:
    """A finding as it is kept. Minor units; stored and proven are None where it is not about a balance."""

    discrepancy_id: int
    cause: str
    action: str
    found_by: Scope
    balance_id: str | None
    transaction_id: str | None
    currency: str | None
    business_date: date | None
    stored_balance: Decimal | None
    stored_credit_balance: Decimal | None
    stored_debit_balance: Decimal | None
    stored_inflight_balance: Decimal | None
    stored_inflight_credit_balance: Decimal | None
    stored_inflight_debit_balance: Decimal | None
    proven_credit_balance: Decimal | None
    proven_debit_balance: Decimal | None
    proven_inflight_credit_balance: Decimal | None
    proven_inflight_debit_balance: Decimal | None
    difference: str
    gross_difference: Decimal
    evidence: dict[str, Any]
    first_seen_at: datetime
    first_verification_id: int
    last_seen_at: datetime
    last_verification_id: int
    closed_at: datetime | None
    closed_verification_id: int | None

    @property
    def subject(self) -> str:
        """What it is about, in words."""
        on = "" if self.business_date is None else f" on {self.business_date}"
        return f"{self.balance_id or self.transaction_id or 'raw rows'}{on}"


@dataclass(frozen=True)
class CauseTotal:
    """What one cause comes to in one currency."""

    cause: str
    action: str
    currency: str
    discrepancy_count: int
    gross_difference: Decimal


def record_findings(connection: Connection, verification: Verification, findings: Sequence[Finding]) -> Recorded:
    """Store findings: a new one opens a discrepancy, one that is open with the same difference is seen again."""
    if not findings:
        return Recorded(0, 0)
    row = connection.execute(
        statement(connection, "verification.record_findings"),
        {
            "findings": json.dumps([_columns(finding) for finding in findings]),
            "verification_id": verification.verification_id,
            "scope": verification.scope,
        },
    ).one()
    return Recorded(*row)


def close_unseen(connection: Connection, verification: Verification) -> int:
    """Close what this verification would have seen and did not; returns how many. Call it when no batch failed.

    What another one saw meanwhile stays open: this one may have looked there before it came to be.
    """
    return connection.execute(
        text(
            f"""
            UPDATE ledger_eod.discrepancies AS known
            SET closed_at = clock_timestamp(), closed_verification_id = :verification_id
            WHERE known.closed_at IS NULL
                AND known.last_seen_at < (
                    SELECT started_at FROM ledger_eod.verifications WHERE verification_id = :verification_id
                )
                AND {SEEN_BY[verification.scope]}
                AND (
                    CAST(:unrestricted AS boolean)
                    OR known.balance_key IN (
                        SELECT id FROM blnk.balances
                        WHERE (CAST(:ledger_id AS text) IS NULL OR ledger_id = CAST(:ledger_id AS text))
                            AND (CAST(:currency AS text) IS NULL OR currency = CAST(:currency AS text))
                            AND (
                                CAST(:balance_ids AS text []) IS NULL
                                OR balance_id = ANY(CAST(:balance_ids AS text []))
                            )
                    )
                )
            """  # noqa: S608 - one of three constants
        ),
        {
            "verification_id": verification.verification_id,
            "unrestricted": not verification.is_restricted,
            "base_run_id": verification.base_run_id,
            "checked_run_ids": closes_to_check(connection, system_identifier(connection)),
            **verification.restriction,
        },
    ).rowcount


def list_discrepancies(
    connection: Connection,
    *,
    limit: int = 200,
    closed_too: bool = False,
    cause: str | None = None,
    verification_id: int | None = None,
) -> list[Discrepancy]:
    """Discrepancies, largest difference first; ``verification_id``: only those it saw."""
    rows = connection.execute(
        text(
            """
            SELECT
                discrepancy_id, cause, action, found_by, balance_id, transaction_id,
                COALESCE(balances.currency, transactions.currency), business_date, stored_balance,
                stored_credit_balance, stored_debit_balance, stored_inflight_balance, stored_inflight_credit_balance,
                stored_inflight_debit_balance, proven_credit_balance, proven_debit_balance,
                proven_inflight_credit_balance, proven_inflight_debit_balance, difference, gross_difference,
                evidence, first_seen_at, first_verification_id, last_seen_at, last_verification_id, closed_at,
                closed_verification_id
            FROM ledger_eod.discrepancies AS known
            LEFT JOIN blnk.balances ON balances.id = known.balance_key
            LEFT JOIN blnk.transactions ON transactions.id = known.transaction_key
            WHERE (CAST(:closed_too AS boolean) OR closed_at IS NULL)
                AND (CAST(:cause AS text) IS NULL OR cause = CAST(:cause AS text))
                AND (
                    CAST(:verification_id AS bigint) IS NULL OR last_verification_id = CAST(:verification_id AS bigint)
                )
            ORDER BY gross_difference DESC, discrepancy_id
            LIMIT :limit
            """
        ),
        {"limit": limit, "closed_too": closed_too, "cause": cause, "verification_id": verification_id},
    )
    return [Discrepancy(*row) for row in rows]


def cause_totals(connection: Connection, *, verification_id: int | None = None) -> list[CauseTotal]:
    """Open discrepancies by cause and currency, largest difference first."""
    rows = connection.execute(
        text(
            """
            SELECT
                cause, action, COALESCE(balances.currency, transactions.currency, ''), count(*), sum(gross_difference)
            FROM ledger_eod.discrepancies AS known
            LEFT JOIN blnk.balances ON balances.id = known.balance_key
            LEFT JOIN blnk.transactions ON transactions.id = known.transaction_key
            WHERE closed_at IS NULL
                AND (
                    CAST(:verification_id AS bigint) IS NULL OR last_verification_id = CAST(:verification_id AS bigint)
                )
            GROUP BY 1, 2, 3
            ORDER BY 5 DESC, 1, 2, 3
            """
        ),
        {"verification_id": verification_id},
    )
    return [CauseTotal(*row) for row in rows]


def _columns(finding: Finding) -> dict[str, Any]:
    columns: dict[str, Any] = {
        "cause": finding.cause,
        "action": finding.action,
        "balance_key": finding.balance_key,
        "transaction_key": finding.transaction_key,
        "business_date": None if finding.business_date is None else str(finding.business_date),
        "stored_balance": _text(finding.balance),
        "stored_inflight_balance": _text(finding.inflight_balance),
        "difference": finding.difference,
        "gross_difference": plain(finding.gross_difference),
        "evidence": dict(finding.evidence),
    }
    for side, parts in (("stored", finding.stored), ("proven", finding.proven)):
        amounts = [None] * len(PARTS) if parts is None else list(parts)
        columns |= {f"{side}_{name}": _text(amount) for name, amount in zip(PARTS, amounts, strict=True)}
    return columns


def _text(amount: Decimal | None) -> str | None:
    return None if amount is None else plain(amount)
