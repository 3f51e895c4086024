"""Verifications: one sweep over stored balances, with its cut, its scope and what came of it.

Opening one takes a cut. What is in it is summed per balance once, into working rows that all batches share; a batch
adds what was committed since, by index, so that each batch proves its rows at its own instant and the sweep costs the
day, not the day times the batches. The working rows go when the verification ends.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import date, datetime
from decimal import Decimal
from math import ceil
from typing import Any, Final, Literal

from sqlalchemy import Connection, Engine, text

from ledger_db.close.cut import cut_of
from ledger_db.close.runs import Run, find_run, newest_certified_close
from ledger_db.core.key_ranges import KeyRange
from ledger_db.errors import NothingToVerify, VerificationNotOpen
from ledger_db.postings.rules import statement
from ledger_db.server.catalogue import system_identifier
from ledger_db.server.holds import hold

Scope = Literal["since-close", "from-genesis", "checksums"]
SCOPES: Final[tuple[Scope, ...]] = ("since-close", "from-genesis", "checksums")


@dataclass(frozen=True)
class Verification:
    """One sweep. ``checked_run_id``: transactions in this close's cut were looked at one by one before."""

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
        """How logs and messages call it."""
        return f"{self.scope} verification {self.verification_id}"

    @property
    def restriction(self) -> dict[str, Any]:
        """What it is restricted to, as parameters."""
        return {"ledger_id": self.ledger_id, "currency": self.currency, "balance_ids": self.balance_ids}

    @property
    def is_restricted(self) -> bool:
        """Whether it is about some balances only."""
        return any(value is not None for value in self.restriction.values())

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
    """What the batches of a verification came to."""

    batch_count: int = 0
    failed_batch_count: int = 0
    balance_count: int = 0
    finding_count: int = 0
    opened_count: int = 0
    gross_volume: Decimal = Decimal(0)
    unexplained_volume: Decimal = Decimal(0)


COLUMNS: Final = """
    verification_id, scope, status, base_run_id, checked_run_id, cut, ledger_id, currency, balance_ids, started_at,
    collected_at, finished_at, batch_count, failed_batch_count, balance_count, finding_count, opened_count,
    closed_count, gross_volume, unexplained_volume
"""


def find_verification(connection: Connection, verification_id: int) -> Verification:
    """One verification by its id.

    Raises:
        VerificationNotOpen: there is none.
    """
    row = connection.execute(
        text(f"SELECT {COLUMNS} FROM ledger_eod.verifications WHERE verification_id = :id"),  # noqa: S608 - constants
        {"id": verification_id},
    ).mappings().one_or_none()  # fmt: skip
    if row is None:
        raise VerificationNotOpen(f"there is no verification {verification_id}")
    return Verification(**row)


def open_verification(
    connection: Connection,
    *,
    scope: Scope,
    ledger_id: str | None = None,
    currency: str | None = None,
    balance_ids: Sequence[str] | None = None,
) -> Verification:
    """Open a verification and take its cut. Its base is the newest certified close of this cluster.

    Raises:
        NothingToVerify: the scope needs a close and there is none, or a balance that is asked for does not exist.
    """
    _require_known(connection, balance_ids)
    base = usable_base(connection)
    if base is None and scope != "from-genesis":
        raise NothingToVerify(
            f"{scope}: there is no certified close of this cluster to verify from; close a day first, or verify "
            "from-genesis"
        )
    verification_id = connection.execute(
        text(
            """
            INSERT INTO ledger_eod.verifications (
                scope, base_run_id, checked_run_id, cut, system_identifier, ledger_id, currency, balance_ids
            ) VALUES (
                CAST(:scope AS ledger_eod.verification_scope), :base_run_id, :checked_run_id, pg_current_snapshot(),
                :system_identifier, :ledger_id, :currency, CAST(:balance_ids AS text [])
            )
            RETURNING verification_id
            """
        ),
        {
            "scope": scope,
            "base_run_id": None if base is None else base.run_id,
            "checked_run_id": _checked_run_id(connection, base) if scope == "since-close" else None,
            "system_identifier": system_identifier(connection),
            "ledger_id": ledger_id,
            "currency": currency,
            "balance_ids": None if balance_ids is None else list(balance_ids),
        },
    ).scalar_one()
    return find_verification(connection, verification_id)


def usable_base(connection: Connection) -> Run | None:
    """The newest certified close, unless it was cut on another cluster, whose transaction ids say nothing here."""
    base = newest_certified_close(connection)
    return None if base is None or base.system_identifier != system_identifier(connection) else base


def close_to_verify(connection: Connection) -> Run | None:
    """The newest certified close, when no finished verification of all balances has it as its base yet."""
    base = usable_base(connection)
    verified = connection.scalar(
        text(
            "SELECT count(*) > 0 FROM ledger_eod.verifications WHERE scope = 'since-close' AND status = 'finished' "
            "AND base_run_id = :base_run_id AND ledger_id IS NULL AND currency IS NULL AND balance_ids IS NULL"
        ),
        {"base_run_id": None if base is None else base.run_id},
    )
    return None if verified else base


def _require_known(connection: Connection, balance_ids: Sequence[str] | None) -> None:
    if balance_ids is None:
        return
    known = set(
        connection.scalars(
            text("SELECT balance_id FROM blnk.balances WHERE balance_id = ANY(CAST(:balance_ids AS text []))"),
            {"balance_ids": list(balance_ids)},
        )
    )
    missing = sorted(set(balance_ids) - known)
    if missing or not balance_ids:
        raise NothingToVerify(
            f"there is no balance {missing[0] if missing else 'given'}; ledger-eod balances lists them"
        )


def _checked_run_id(connection: Connection, base: Run | None) -> int | None:
    """The newest close whose transactions a finished verification of all balances has looked at."""
    if base is None:
        return None
    run_id = connection.scalar(
        text(
            "SELECT max(done.base_run_id) FROM ledger_eod.verifications AS done "
            "JOIN ledger_eod.runs ON runs.run_id = done.base_run_id "
            "WHERE done.status = 'finished' AND done.scope <> 'checksums' AND runs.genesis_run_id = :genesis_run_id "
            "AND done.ledger_id IS NULL AND done.currency IS NULL AND done.balance_ids IS NULL"
        ),
        {"genesis_run_id": base.genesis_run_id},
    )
    return None if run_id is None else int(run_id)


def base_date_of(connection: Connection, verification: Verification) -> date | None:
    """The business date of its base close."""
    if verification.base_run_id is None:
        return None
    return find_run(connection, verification.base_run_id).business_date


def collect_postings(connection: Connection, verification_id: int) -> int:
    """Sum the postings in a verification's cut per balance, once; a second call finds them there.

    Since the close: what its base does not have. From genesis: everything, split at the base.

    Raises:
        VerificationNotOpen: it ended meanwhile.
    """
    verification = lock_open_verification(connection, verification_id)
    if verification.collected_at is not None:
        return 0
    connection.execute(text("SET LOCAL statement_timeout = 0"))  # one statement for the whole sweep
    # a crash loses at most the working rows, together with the note that they are there
    connection.execute(text("SET LOCAL synchronous_commit = off"))
    count = connection.execute(
        statement(connection, "verification.collect_verification"),
        {
            "verification_id": verification_id,
            "cut": verification.cut,
            "balance_ids": verification.balance_ids,
            # without a base everything is since it
            "from_genesis": verification.scope == "from-genesis" and verification.base_run_id is not None,
            **cut_of(connection, verification.base_run_id, "base"),
        },
    ).rowcount
    connection.execute(
        text("UPDATE ledger_eod.verifications SET collected_at = clock_timestamp() WHERE verification_id = :id"),
        {"id": verification_id},
    )
    return count


def plan_balance_ranges(connection: Connection, verification_id: int, *, batch_size: int) -> list[KeyRange]:
    """The ranges of at most ``batch_size`` balances that a verification is about, in key order."""
    verification = find_verification(connection, verification_id)
    rows = connection.execute(
        statement(connection, "verification.plan_balance_ranges"),
        {"batch_size": batch_size, **verification.restriction},
    )
    return [KeyRange(*row) for row in rows]


def lock_open_verification(connection: Connection, verification_id: int) -> Verification:
    """The verification, kept open until the transaction ends; findings can be stored meanwhile.

    Raises:
        VerificationNotOpen: it is finished or abandoned.
    """
    connection.execute(
        text("SELECT FROM ledger_eod.verifications WHERE verification_id = :id FOR NO KEY UPDATE"),
        {"id": verification_id},
    )
    verification = find_verification(connection, verification_id)
    if verification.status != "open":
        raise VerificationNotOpen(f"{verification.name} is {verification.status}; start a new one")
    return verification


def end_verification(connection: Connection, verification_id: int, tally: Tally, *, closed_count: int) -> Verification:
    """Store what a verification came to and drop its working rows; after a failed batch it is abandoned."""
    lock_open_verification(connection, verification_id)
    _drop_sums(connection, [verification_id])
    connection.execute(
        text(
            "UPDATE ledger_eod.verifications SET status = CAST(:status AS ledger_eod.verification_status), "
            "finished_at = clock_timestamp(), batch_count = :batch_count, failed_batch_count = :failed_batch_count, "
            "balance_count = :balance_count, finding_count = :finding_count, opened_count = :opened_count, "
            "closed_count = :closed_count, gross_volume = :gross_volume, unexplained_volume = :unexplained_volume "
            "WHERE verification_id = :id"
        ),
        {
            "id": verification_id,
            "status": "abandoned" if tally.failed_batch_count else "finished",
            "closed_count": closed_count,
            **vars(tally),
        },
    )
    return find_verification(connection, verification_id)


def abandon_others(connection: Connection, scope: Scope) -> int:
    """Give up what dead processes left open in a scope; the caller holds the scope, so nobody is at work on it."""
    left = connection.scalars(
        text(
            "UPDATE ledger_eod.verifications SET status = 'abandoned', finished_at = clock_timestamp() "
            "WHERE status = 'open' AND scope = CAST(:scope AS ledger_eod.verification_scope) RETURNING verification_id"
        ),
        {"scope": scope},
    ).all()
    _drop_sums(connection, list(left))
    return len(left)


def _drop_sums(connection: Connection, verification_ids: list[int]) -> None:
    connection.execute(
        text("DELETE FROM ledger_eod.verification_sums WHERE verification_id = ANY(CAST(:ids AS bigint []))"),
        {"ids": verification_ids},
    )


def hold_scope(engine: Engine, scope: Scope) -> AbstractContextManager[bool]:
    """Hold a scope while the block lasts; False at once when another session is at work on it."""
    return hold(engine, "verify", SCOPES.index(scope))
