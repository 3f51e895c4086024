"""Verifications: one sweep over stored balances, with its cut, its scope and its outcome.

Opening one takes a cut. The postings in it are summed per balance once, into working rows that all batches share. A
batch adds what was committed since, by index: it proves its rows at its own instant and reads the day's postings no
second time. The working rows are deleted when the verification ends.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, fields
from datetime import datetime
from decimal import Decimal
from math import ceil
from typing import Any, Final, Literal

from sqlalchemy import (
    BigInteger,
    ColumnElement,
    Connection,
    Engine,
    FromClause,
    and_,
    any_,
    delete,
    func,
    insert,
    literal,
    select,
    update,
)
from sqlalchemy.dialects.postgresql import ARRAY

from ledger_db.close.cluster import ensure_cluster, require_own_records
from ledger_db.close.cut import base_parameters, cut_parameters
from ledger_db.close.runs import Run, find_run, newest_certified_close
from ledger_db.close.samples import require_same_rows
from ledger_db.close.tables import runs
from ledger_db.core.amounts import EXACT
from ledger_db.core.key_ranges import KeyRange
from ledger_db.errors import (
    Hint,
    Misused,
    NothingToVerify,
    UnknownVerification,
    VerificationNotOpen,
)
from ledger_db.postings.rules import statement
from ledger_db.server.catalogue import system_identifier
from ledger_db.server.connections import set_local, without_time_limit
from ledger_db.server.holds import hold
from ledger_db.verification import tables
from ledger_db.verification.selection import require_known, require_selected

Scope = Literal["since-close", "from-genesis", "checksums"]
SCOPES: Final[tuple[Scope, ...]] = ("since-close", "from-genesis", "checksums")


@dataclass(frozen=True)
class Verification:
    """One sweep. ``checked_run_id``: the transactions that its chain counted were checked one by one before."""

    verification_id: int
    scope: Scope
    status: Literal["open", "finished", "abandoned"]
    base_run_id: int | None
    checked_run_id: int | None
    cut: str
    ledger_id: str | None
    currency: str | None
    balance_ids: list[str] | None
    started_at: datetime
    collected_at: datetime | None
    finished_at: datetime | None
    batch_count: int
    failed_batch_count: int
    balance_count: int
    finding_count: int
    opened_count: int
    closed_count: int
    gross_volume: Decimal
    unexplained_volume: Decimal

    @property
    def name(self) -> str:
        """Name for logs and messages; one of some balances says of which."""
        of = f" of {self.part}" if self.is_restricted else ""
        return f"{self.scope} verification {self.verification_id}{of}"

    @property
    def restriction(self) -> dict[str, Any]:
        """What it is restricted to, as the statements' parameters; None: not restricted by it."""
        return {"ledger_id": self.ledger_id, "currency": self.currency, "balance_ids": self.balance_ids}

    @property
    def is_restricted(self) -> bool:
        """Whether it is about some balances only."""
        return any(value is not None for value in self.restriction.values())

    @property
    def part(self) -> str:
        """The balances that it is restricted to, in words; empty: it is about all."""
        named = self.balance_ids or []
        words = {
            "ledger": self.ledger_id,
            "currency": self.currency,
            "balance": named[0] if len(named) == 1 else None,
            "": f"{len(named)} balances" if len(named) > 1 else None,
        }
        return ", ".join(f"{what} {value}".strip() for what, value in words.items() if value is not None)

    @property
    def explained_percent(self) -> str:
        """The share of gross volume whose effect on stored rows is proven or has a cause, in percent, rounded down."""
        if not self.unexplained_volume:
            return "100"
        gross = int(self.gross_volume)
        explained = max(gross - ceil(self.unexplained_volume), 0)
        millionths = explained * 10**6 // gross if gross else 0
        return f"{millionths // 10**4}.{millionths % 10**4:04d}"


@dataclass(frozen=True)
class Tally:
    """Counts and volumes of some batches of a verification; the sum of two tallies is that of all their batches."""

    batch_count: int = 0
    failed_batch_count: int = 0
    balance_count: int = 0
    finding_count: int = 0
    opened_count: int = 0
    gross_volume: Decimal = Decimal(0)
    unexplained_volume: Decimal = Decimal(0)

    def __add__(self, other: Tally) -> Tally:
        return Tally(
            batch_count=self.batch_count + other.batch_count,
            failed_batch_count=self.failed_batch_count + other.failed_batch_count,
            balance_count=self.balance_count + other.balance_count,
            finding_count=self.finding_count + other.finding_count,
            opened_count=self.opened_count + other.opened_count,
            gross_volume=EXACT.add(self.gross_volume, other.gross_volume),
            unexplained_volume=EXACT.add(self.unexplained_volume, other.unexplained_volume),
        )


_COLUMNS: Final = [tables.verifications.c[field.name] for field in fields(Verification)]


def find_verification(connection: Connection, verification_id: int) -> Verification:
    """One verification by its id.

    Raises:
        UnknownVerification: there is none.
    """
    return _find(connection, verification_id, lock=False)


def _find(connection: Connection, verification_id: int, *, lock: bool) -> Verification:
    query = select(*_COLUMNS).where(tables.verifications.c.verification_id == verification_id)
    row = connection.execute(query.with_for_update(key_share=True) if lock else query).one_or_none()
    if row is None:
        raise UnknownVerification(f"there is no verification {verification_id}")
    return Verification(**row._mapping)


def open_verification(
    connection: Connection,
    *,
    scope: Scope,
    ledger_id: str | None = None,
    currency: str | None = None,
    balance_ids: Sequence[str] | None = None,
) -> Verification:
    """Open a verification and take its cut. Its base is the newest certified close.

    Raises:
        NothingToVerify: the scope needs a close and there is none.
        Misused: some balances are selected for the checksums of whole closes.
        NothingSelected: no balance is selected, or there is none at all.
        UnknownBalance: one that is given does not exist, or none is given.
        ForeignRecords: transactions were copied in with another cluster's transaction ids.
        TableMadeAnew: since-close: keys stand for other transactions, so that all of them would be new.
    """
    require_known(connection, balance_ids)
    is_restricted = (ledger_id, currency, balance_ids) != (None, None, None)
    if scope == "checksums" and is_restricted:
        raise Misused("checksums compares whole closes: select no ledger, currency or balance for it")
    require_selected(connection, ledger_id=ledger_id, currency=currency, balance_ids=balance_ids)
    base = newest_certified_close(connection)
    if base is None and scope != "from-genesis":
        raise NothingToVerify(f"{scope}: there is no certified close to verify from", hint=Hint.close_a_date_first)
    if scope == "since-close":
        require_same_rows(connection, base)
    ensure_cluster(connection)  # before the cut: every cut of a cluster sees what existed when it was first seen
    if scope != "checksums":  # which reads what was counted, by its keys
        require_own_records(connection)
    verification_id = connection.execute(
        insert(tables.verifications)
        .values(
            scope=scope,
            base_run_id=None if base is None else base.run_id,
            checked_run_id=_checked_run_id(connection, base) if scope == "since-close" else None,
            cut=func.pg_current_snapshot(),
            system_identifier=system_identifier(connection),
            ledger_id=ledger_id,
            currency=currency,
            balance_ids=None if balance_ids is None else list(balance_ids),
        )
        .returning(tables.verifications.c.verification_id)
    ).scalar_one()
    return find_verification(connection, verification_id)


def require_finished(connection: Connection) -> None:
    """Refuse to say that nothing was found where nothing was looked at.

    Raises:
        NothingToVerify: no verification has finished.
    """
    finished = select(tables.verifications.c.verification_id).where(tables.verifications.c.status == "finished")
    if not connection.scalar(select(finished.exists())):
        raise NothingToVerify("no verification has finished: nothing was looked at", hint=Hint.verify_first)


def close_to_verify(connection: Connection) -> Run | None:
    """The newest certified close, when no finished verification of all balances has it as its base yet."""
    base = newest_certified_close(connection)
    if base is None:
        return None
    done = tables.verifications
    verified = connection.scalar(
        select(func.count() > 0).where(
            done.c.scope == "since-close",
            done.c.status == "finished",
            done.c.base_run_id == base.run_id,
            _is_of_all_balances(done),
        )
    )
    return None if verified else base


def _is_of_all_balances(done: FromClause) -> ColumnElement[bool]:
    return and_(done.c.ledger_id.is_(None), done.c.currency.is_(None), done.c.balance_ids.is_(None))


def _checked_run_id(connection: Connection, base: Run | None) -> int | None:
    """The newest close whose transactions were checked by a finished verification of all balances."""
    if base is None:
        return None
    done = tables.verifications
    run_id = connection.scalar(
        select(func.max(done.c.base_run_id))
        .join_from(done, runs, runs.c.run_id == done.c.base_run_id)
        .where(
            done.c.status == "finished",
            done.c.scope != "checksums",
            runs.c.genesis_run_id == base.genesis_run_id,
            _is_of_all_balances(done),
        )
    )
    return None if run_id is None else int(run_id)


def base_of(connection: Connection, verification: Verification) -> Run | None:
    """Its base close."""
    return None if verification.base_run_id is None else find_run(connection, verification.base_run_id)


def collect_postings(connection: Connection, verification_id: int) -> int:
    """Sum the postings in a verification's cut per balance and return how many balances have some.

    Since the close: the postings that its base's chain has not counted. From genesis: all, split at the base. A second
    call changes nothing and returns 0.

    Raises:
        VerificationNotOpen: it has ended.
    """
    verification = lock_open_verification(connection, verification_id)
    if verification.collected_at is not None:
        return 0
    without_time_limit(connection)  # one statement for the whole sweep
    # a crash loses at most the working rows, together with collected_at
    set_local(connection, "synchronous_commit", "off")
    set_local(connection, "jit", "off")  # how many rows sets of keys name is not in the statistics
    count = connection.execute(
        statement(connection, "verification.collect_postings"),
        {
            "verification_id": verification_id,
            "balance_ids": verification.balance_ids,
            # without a base nothing is counted, and everything is summed as since
            "from_genesis": verification.scope == "from-genesis" and verification.base_run_id is not None,
            **cut_parameters(connection, verification.cut),
            **base_parameters(connection, base_of(connection, verification)),
        },
    ).rowcount
    connection.execute(
        update(tables.verifications)
        .where(tables.verifications.c.verification_id == verification_id)
        .values(collected_at=func.clock_timestamp())
    )
    return count


def plan_balance_ranges(connection: Connection, verification_id: int, *, batch_size: int) -> list[KeyRange]:
    """The balances that a verification is about, as ranges of at most ``batch_size`` of them, in key order."""
    verification = find_verification(connection, verification_id)
    rows = connection.execute(
        statement(connection, "verification.plan_balance_ranges"),
        {"batch_size": batch_size, **verification.restriction},
    )
    return [KeyRange(*row) for row in rows]


def lock_open_verification(connection: Connection, verification_id: int) -> Verification:
    """The verification, its row locked: it stays open until the transaction ends. Findings can be stored meanwhile.

    Raises:
        UnknownVerification: there is none.
        VerificationNotOpen: it is finished or abandoned.
    """
    verification = _find(connection, verification_id, lock=True)
    if verification.status != "open":
        raise VerificationNotOpen(f"{verification.name} is {verification.status}", hint=Hint.start_verification)
    return verification


def end_verification(connection: Connection, verification_id: int, tally: Tally, *, closed_count: int) -> Verification:
    """Store a verification's totals and delete its working rows; after a failed batch it is abandoned, not finished.

    Raises:
        VerificationNotOpen: it has ended.
    """
    lock_open_verification(connection, verification_id)
    _delete_sums(connection, [verification_id])
    connection.execute(
        update(tables.verifications)
        .where(tables.verifications.c.verification_id == verification_id)
        .values(
            status="abandoned" if tally.failed_batch_count else "finished",
            finished_at=func.clock_timestamp(),
            closed_count=closed_count,
            **vars(tally),
        )
    )
    return find_verification(connection, verification_id)


def abandon_others(connection: Connection, scope: Scope) -> int:
    """Abandon what processes that died left open in a scope. The caller holds the scope, so no process works on it."""
    verifications = tables.verifications
    left = connection.scalars(
        update(verifications)
        .where(verifications.c.status == "open", verifications.c.scope == scope)
        .values(status="abandoned", finished_at=func.clock_timestamp())
        .returning(verifications.c.verification_id)
    ).all()
    _delete_sums(connection, list(left))
    return len(left)


def _delete_sums(connection: Connection, verification_ids: list[int]) -> None:
    sums = tables.verification_sums
    connection.execute(delete(sums).where(sums.c.verification_id == any_(literal(verification_ids, ARRAY(BigInteger)))))


def hold_scope(engine: Engine, scope: Scope) -> AbstractContextManager[bool]:
    """Hold a scope while the block lasts; False at once when another session is at work on it."""
    return hold(engine, "verify", SCOPES.index(scope))
