"""Discrepancies: findings as rows that are kept, one row for as long as verifications see the same difference."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields
from datetime import date, datetime
from decimal import Decimal
from typing import Any, Final

from sqlalchemy import (
    BigInteger,
    ColumnElement,
    Connection,
    Row,
    Select,
    Text,
    and_,
    any_,
    cast,
    exists,
    false,
    func,
    literal,
    literal_column,
    or_,
    select,
    true,
    update,
)
from sqlalchemy.dialects.postgresql import ARRAY

from ledger_db.books.tables import balances, transactions
from ledger_db.close.new_chain import is_ended
from ledger_db.close.runs import certified_run_ids
from ledger_db.close.tables import captured_balances, runs
from ledger_db.core.amounts import Parts, plain, total
from ledger_db.postings.rules import statement
from ledger_db.verification import tables
from ledger_db.verification.causes import Finding
from ledger_db.verification.selection import selected_keys
from ledger_db.verification.sweeps import Scope, Tally, Verification

_KNOWN: Final = tables.discrepancies
#: Of the balance that a discrepancy is about, its row gone or not; the currency otherwise of its transaction.
_BALANCE_ID: Final = func.coalesce(captured_balances.c.balance_id, balances.c.balance_id)
_CURRENCY: Final = func.coalesce(captured_balances.c.currency, balances.c.currency, transactions.c.currency)


@dataclass(frozen=True)
class Discrepancy:
    """A finding as it is kept. Minor units; amounts are None where it is not about a balance.

    ``stored``, ``proven``: the parts that differ. ``stored_balance``, ``stored_inflight_balance``: of the stored row;
    None where ``stored`` is what a close stored.
    """

    discrepancy_id: int
    cause: str
    action: str
    found_by: Scope
    balance_id: str | None
    transaction_id: str | None
    currency: str | None
    business_date: date | None
    stored_balance: Decimal | None
    stored_inflight_balance: Decimal | None
    stored: Parts | None
    proven: Parts | None
    difference: str
    gross_difference: Decimal
    evidence: dict[str, Any]
    first_seen_at: datetime
    first_verification_id: int
    last_seen_at: datetime
    last_verification_id: int
    closed_at: datetime | None
    closed_verification_id: int | None
    closed_correction_id: int | None

    @property
    def subject(self) -> str:
        """What it is about, in words."""
        on = "" if self.business_date is None else f" on {self.business_date}"
        return f"{self.balance_id or self.transaction_id or 'raw rows'}{on}"


@dataclass(frozen=True)
class CauseTotal:
    """The discrepancies of one cause in one currency: how many, and their total regardless of signs, in minor units."""

    cause: str
    action: str
    currency: str
    discrepancy_count: int
    gross_difference: Decimal


def record_findings(connection: Connection, verification: Verification, findings: Sequence[Finding]) -> Tally:
    """Store findings and count them.

    A new one opens a discrepancy; where one is open with the same cause and difference, that one is seen again.
    """
    if not findings:
        return Tally()
    recorded = connection.execute(
        statement(connection, "verification.record_findings"),
        {
            "findings": json.dumps([_as_json(finding) for finding in findings]),
            "verification_id": verification.verification_id,
            "scope": verification.scope,
        },
    ).one()
    return Tally(
        finding_count=len(findings),
        opened_count=recorded.opened_count,
        unexplained_volume=total(finding.unexplained_volume for finding in findings),
    )


def _as_json(finding: Finding) -> dict[str, Any]:
    amounts = {"stored_balance": finding.balance, "stored_inflight_balance": finding.inflight_balance}
    amounts |= {} if finding.stored is None else finding.stored.as_columns("stored_")
    amounts |= {} if finding.proven is None else finding.proven.as_columns("proven_")
    return {
        "cause": finding.cause,
        "action": finding.action,
        "balance_key": finding.balance_key,
        "transaction_key": finding.transaction_key,
        "business_date": None if finding.business_date is None else str(finding.business_date),
        "difference": finding.difference,
        "gross_difference": plain(finding.gross_difference),
        "evidence": dict(finding.evidence),
        **{column: None if amount is None else plain(amount) for column, amount in amounts.items()},
    }


def close_unseen(connection: Connection, verification: Verification) -> int:
    """Close what this verification would have seen and did not; returns how many. Call it when no batch failed.

    What another verification saw since this one started stays open: this one may have looked there before.
    """
    return connection.execute(
        update(_KNOWN)
        .where(
            _KNOWN.c.closed_at.is_(None),
            _KNOWN.c.last_seen_at < verification.started_at,
            _is_seen_by(connection, verification),
            _is_restricted_to(verification),
        )
        .values(closed_at=func.clock_timestamp(), closed_verification_id=verification.verification_id)
    ).rowcount


def _is_seen_by(connection: Connection, verification: Verification) -> ColumnElement[bool]:
    """Whether a verification of this scope would see an open discrepancy if the difference were still there.

    Checksums: what was found of certified runs.
    """
    if verification.scope == "checksums":
        run_ids = certified_run_ids(connection)
        return and_(
            _KNOWN.c.business_date.is_not(None),
            cast(_KNOWN.c.evidence["run_id"].astext, BigInteger) == any_(literal(run_ids, ARRAY(BigInteger))),
        )
    return and_(
        _KNOWN.c.business_date.is_(None),
        or_(_KNOWN.c.balance_key.is_not(None), _is_of_checked_transaction(verification)),
        or_(_KNOWN.c.cause != "row_edited_or_removed", _is_of_same_closes(verification)),
    )


def _is_of_checked_transaction(verification: Verification) -> ColumnElement[bool]:
    """From genesis every transaction is checked. Since the close only the newest are, and an early commit is one."""
    if verification.is_restricted:
        return false()
    if verification.scope == "since-close":
        return _KNOWN.c.cause == "early_commit"
    return _KNOWN.c.transaction_key.is_not(None)


def _is_of_same_closes(verification: Verification) -> ColumnElement[bool]:
    """Whether it was last seen by a verification whose base is of the same chain of closes, or of one that has ended.

    Only a verification from genesis compares all raw rows with snapshots; since the close, the snapshots are the proof.
    """
    if verification.scope == "since-close" or verification.base_run_id is None:
        return false()
    seen, seen_base, base = tables.verifications.alias("seen"), runs.alias("seen_base"), runs.alias("base")
    return (
        exists()
        .where(
            seen.c.verification_id == _KNOWN.c.last_verification_id,
            seen_base.c.run_id == seen.c.base_run_id,
            or_(base.c.genesis_run_id == seen_base.c.genesis_run_id, is_ended(seen_base.c.genesis_run_id)),
            base.c.run_id == verification.base_run_id,
        )
        .correlate(_KNOWN)
    )


def _is_restricted_to(verification: Verification) -> ColumnElement[bool]:
    if not verification.is_restricted:
        return true()
    return _KNOWN.c.balance_key.in_(selected_keys(**verification.restriction))


def close_corrected(connection: Connection, balance_key: int, *, causes: Iterable[str], correction_id: int) -> int:
    """Close what was found of a balance's stored row, of some causes: a correction answers it. Returns how many."""
    return connection.execute(
        update(_KNOWN)
        .where(
            _KNOWN.c.balance_key == balance_key,
            _KNOWN.c.closed_at.is_(None),
            _KNOWN.c.business_date.is_(None),
            _KNOWN.c.cause == any_(literal(sorted(causes), ARRAY(Text))),
        )
        .values(closed_at=func.clock_timestamp(), closed_correction_id=correction_id)
    ).rowcount


def list_discrepancies(
    connection: Connection,
    *,
    limit: int = 200,
    closed_too: bool = False,
    cause: str | None = None,
    verification_id: int | None = None,
) -> list[Discrepancy]:
    """Discrepancies, largest difference first; ``verification_id``: only those that it saw."""
    query = _with_subjects(
        select(_KNOWN, _BALANCE_ID.label("balance_id"), transactions.c.transaction_id, _CURRENCY.label("currency"))
    )
    if not closed_too:
        query = query.where(_KNOWN.c.closed_at.is_(None))
    if cause is not None:
        query = query.where(_KNOWN.c.cause == cause)
    if verification_id is not None:
        query = query.where(_KNOWN.c.last_verification_id == verification_id)
    rows = connection.execute(query.order_by(_KNOWN.c.gross_difference.desc(), _KNOWN.c.discrepancy_id).limit(limit))
    return [_discrepancy(row) for row in rows]


def cause_totals(connection: Connection, *, verification_id: int | None = None) -> list[CauseTotal]:
    """Open discrepancies by cause and currency, largest difference first."""
    currency = func.coalesce(_CURRENCY, literal_column("''"))
    gross_difference = func.sum(_KNOWN.c.gross_difference)
    query = _with_subjects(select(_KNOWN.c.cause, _KNOWN.c.action, currency, func.count(), gross_difference)).where(
        _KNOWN.c.closed_at.is_(None)
    )
    if verification_id is not None:
        query = query.where(_KNOWN.c.last_verification_id == verification_id)
    rows = connection.execute(
        query.group_by(_KNOWN.c.cause, _KNOWN.c.action, currency).order_by(
            gross_difference.desc(), _KNOWN.c.cause, _KNOWN.c.action, currency
        )
    )
    return [CauseTotal(*row) for row in rows]


def _with_subjects(query: Select[Any]) -> Select[Any]:
    return query.select_from(
        _KNOWN.outerjoin(captured_balances, captured_balances.c.balance_key == _KNOWN.c.balance_key)
        .outerjoin(balances, balances.c.id == _KNOWN.c.balance_key)
        .outerjoin(transactions, transactions.c.id == _KNOWN.c.transaction_key)
    )  # fmt: skip


def _discrepancy(row: Row[Any]) -> Discrepancy:
    names = {field.name for field in fields(Discrepancy)} - {"stored", "proven"}
    return Discrepancy(
        **{name: row._mapping[name] for name in names},
        stored=None if row.stored_credit_balance is None else Parts.of_row(row, "stored_"),
        proven=None if row.proven_credit_balance is None else Parts.of_row(row, "proven_"),
    )
