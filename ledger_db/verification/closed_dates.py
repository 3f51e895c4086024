"""Closed dates: compares each run's raw rows, its snapshots and its other figures with the digests that it stored.

A close's rows are those of the keys that it counted, whatever date they have now. Findings name the dates whose rows
differ, then the balances on them, the rows that have another date now, and how many are gone.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date
from decimal import Decimal
from enum import StrEnum
from typing import Any, Final

from sqlalchemy import Connection, Row, exists, select, union

from ledger_db.close import tables
from ledger_db.close.certification import checksum_snapshots
from ledger_db.close.cut import base_of, base_parameters
from ledger_db.close.figure_digests import digest_figures, stored_figure_digests
from ledger_db.close.new_chain import chain_was_ended
from ledger_db.close.row_checksums import has_known_keys, stored_checksums
from ledger_db.close.row_digests import Digests, digests_then_and_now
from ledger_db.close.runs import Run, find_run
from ledger_db.core.amounts import EXACT, Parts, difference_of, plain, total
from ledger_db.postings.rules import statement
from ledger_db.server.connections import without_time_limit
from ledger_db.verification.causes import Finding
from ledger_db.verification.sweeps import Tally

CAUSE: Final = "row_edited_or_removed"
#: As many transactions as a finding names.
NAMED: Final = 20


class RowsLeftOut(StrEnum):
    """Why the raw rows of a run are not compared: only its snapshots and other figures are."""

    no_digests = "made before checksums were stored"
    unknown_rows = "made in another cluster, before the keys of what was counted were stored"
    ended_chain = "of a chain that an approved new one has ended"
    interim = "interim, whose rows may change until a close counts them"


@dataclass(frozen=True)
class RunsCompared:
    """The certified runs whose snapshots and other figures were compared; the sum of two is that of all their runs.

    ``transaction_count``: of their raw rows. ``rows_left_out``: of how many runs these were not compared, and why.
    """

    run_count: int = 0
    transaction_count: int = 0
    dates: frozenset[date] = frozenset()
    rows_left_out: Counter[RowsLeftOut] = field(default_factory=Counter)

    def __add__(self, other: RunsCompared) -> RunsCompared:
        return RunsCompared(
            self.run_count + other.run_count,
            self.transaction_count + other.transaction_count,
            self.dates | other.dates,
            self.rows_left_out + other.rows_left_out,
        )

    def __str__(self) -> str:
        if not self.run_count:
            return "no certified run"
        first, last = min(self.dates), max(self.dates)
        span = f"{first}" if first == last else f"{len(self.dates):,} dates from {first} to {last}"
        left_out = "".join(f", the rows of {count:,} not ({why})" for why, count in self.rows_left_out.items())
        runs = "1 certified run" if self.run_count == 1 else f"{self.run_count:,} certified runs"
        return f"{runs} of {span}, {self.transaction_count:,} transactions{left_out}"


#: What a verification of another scope compares.
NO_RUNS: Final = RunsCompared()


@dataclass(frozen=True)
class RunCheck:
    """The findings on one run. ``rows_left_out``: why its raw rows are not compared, where they are not."""

    run_id: int
    business_date: date
    transaction_count: int
    rows_left_out: RowsLeftOut | None
    findings: list[Finding]

    @property
    def compared(self) -> RunsCompared:
        """This run alone."""
        left_out = () if self.rows_left_out is None else (self.rows_left_out,)
        return RunsCompared(1, self.transaction_count, frozenset({self.business_date}), Counter(left_out))

    @property
    def tally(self) -> Tally:
        """One batch; its findings are counted where they are stored."""
        return Tally(batch_count=1)


def check_run(connection: Connection, run_id: int) -> RunCheck:
    """Check one certified run: its raw rows, its snapshots and its other figures against the digests that it stored.

    The rows of a chain that an approved new one has ended are not compared: they were when it was proposed.
    Names first the dates, then the balances on them. Reads only. Cost: the run's own rows, its late ones twice, and the
    chain's activity where its snapshots were altered.

    Raises:
        UnknownRun: there is none of this id.
    """
    run = find_run(connection, run_id)
    without_time_limit(connection)
    left_out = _why_left_out(connection, run)
    then, now = digests_then_and_now(connection, run) if left_out is None else ({}, {})
    dates = sorted({day for piece, day in then.keys() | now.keys() if then.get((piece, day)) != now.get((piece, day))})
    findings = _findings_on_snapshots(connection, run)
    findings += _findings_on_figures(
        connection, run, rows_too=left_out in (None, RowsLeftOut.no_digests), but=dates
    )  # fmt: skip
    if dates:
        findings += _findings_on_rows(connection, run, dates, then, now)
    transaction_count = sum(digest.transaction_count for digest in now.values())
    return RunCheck(run_id, run.business_date, transaction_count, left_out, findings)


def _why_left_out(connection: Connection, run: Run) -> RowsLeftOut | None:
    """Why a run's raw rows cannot be compared; None: they can."""
    if run.kind == "interim":
        return RowsLeftOut.interim
    if chain_was_ended(connection, run.genesis_run_id):
        return RowsLeftOut.ended_chain
    if not has_known_keys(connection, run):
        return RowsLeftOut.unknown_rows
    if run.planned_at is None and not stored_checksums(connection, run) and _has_activity(connection, run):
        return RowsLeftOut.no_digests
    return None


def _has_activity(connection: Connection, run: Run) -> bool:
    return bool(connection.scalar(select(exists().where(tables.activity.c.run_id == run.run_id))))


def _findings_on_rows(
    connection: Connection, run: Run, dates: list[date], then: Digests, now: Digests
) -> list[Finding]:
    changed = _changed_balances(connection, run, dates)
    missing = _missing_rows(connection, run, dates)
    on_dates = []
    for day in dates:
        moved = {each for row in changed if row.effective_date == day for each in row.moved_transaction_ids}
        on_dates.append(
            _changed_date(
                run, day, _of_date(then, day), _of_date(now, day),
                {"missing_count": missing.get(day, 0), "moved_transaction_ids": sorted(moved)[:NAMED]},
            )
        )  # fmt: skip
    return on_dates + [
        _changed_balance(
            run, row, row.effective_date, f"run {run.run_id}",
            {
                "postings_then": int(row.postings_then), "postings_now": int(row.postings_now),
                "transaction_ids_now": list(row.transaction_ids),
                "moved_transaction_ids": list(row.moved_transaction_ids),
            },
        )
        for row in changed
    ]  # fmt: skip


def _of_date(digests: Digests, day: date) -> dict[str, str]:
    """All pieces of one date as one."""
    pieces = [digest for _, digest in sorted(digests.items()) if digest.effective_date == day]
    return {
        "transaction_count": str(sum(piece.transaction_count for piece in pieces)),
        "posted_amount": plain(total(piece.posted_amount for piece in pieces)),
        "held_amount": plain(total(piece.held_amount for piece in pieces)),
        "checksum": _joined(piece.digest for piece in pieces),
    }


def _joined(digests: Iterable[str]) -> str:
    """One digest as it is, several as the SHA-256 of them."""
    given = list(digests)
    return given[0] if len(given) == 1 else hashlib.sha256("|".join(given).encode()).hexdigest() if given else ""


def _changed_date(
    run: Run, day: date, then: Mapping[str, str], now: Mapping[str, str], evidence: Mapping[str, Any]
) -> Finding:
    _, gross = difference_of(
        [EXACT.subtract(Decimal(then[name]), Decimal(now[name])) for name in ("posted_amount", "held_amount")]
    )
    return Finding(
        CAUSE, "investigate", business_date=day, difference=f"run {run.run_id}|{then['checksum']}|{now['checksum']}",
        gross_difference=gross, evidence={**_names(run), "then": then, "now": now, **evidence},
    )  # fmt: skip


def _changed_balances(connection: Connection, run: Run, dates: list[date]) -> Sequence[Row[Any]]:
    if not dates:
        return []
    return connection.execute(
        statement(connection, "verification.changed_balances"),
        {
            "run_id": run.run_id, "dates": dates, "closes_at": run.closes_at, "genesis_run_id": run.genesis_run_id,
            "time_zone": run.time_zone, "cut_off": run.cut_off,
            "business_date": run.business_date, **base_parameters(connection, base_of(connection, run)),
        },
    ).all()  # fmt: skip


def _missing_rows(connection: Connection, run: Run, dates: list[date]) -> dict[date, int]:
    rows = connection.execute(
        statement(connection, "verification.missing_rows"), {"run_id": run.run_id, "dates": dates}
    )
    return {row.effective_date: int(row.missing_count) for row in rows}


def _findings_on_snapshots(connection: Connection, run: Run) -> list[Finding]:
    checksum = checksum_snapshots(connection, run)
    if checksum == run.checksum:
        return []
    altered = Finding(
        CAUSE, "investigate", business_date=run.business_date,
        difference=f"snapshots of run {run.run_id}|{run.checksum}|{checksum}",
        evidence={**_names(run), "snapshots": "altered"},
    )  # fmt: skip
    return [
        altered,
        *(  # a close's snapshots are sums of its chain's activity
            _changed_balance(
                run, row, run.business_date, f"snapshot of run {run.run_id}",
                {"snapshot": "missing" if row.is_missing else "altered"},
            )
            for row in (_altered_snapshots(connection, run) if run.kind == "close" else [])
        ),
    ]  # fmt: skip


def _findings_on_figures(connection: Connection, run: Run, *, rows_too: bool, but: Collection[date]) -> list[Finding]:
    """What of a run's figures was altered; of its activity, the balances too, where the rows can tell them.

    Late activity is compared with its rows in any case: answers are made of it, and no snapshot shows it by itself.
    ``but``: dates whose rows are not those of the digests, which are compared with them elsewhere.
    """
    then, now = stored_figure_digests(connection, run.run_id), digest_figures(connection, run.run_id)
    altered = sorted(subject for subject in then.keys() | now.keys() if then.get(subject) != now.get(subject))
    findings = [
        Finding(
            CAUSE, "investigate", business_date=run.business_date,
            difference=f"{subject} of run {run.run_id}|{then.get(subject)}|{now.get(subject)}",
            evidence={**_names(run), subject: "altered"},
        )
        for subject in altered
    ]  # fmt: skip
    if not rows_too:
        return findings
    was_altered = "activity" in altered
    dates = _dates_of(connection, run)
    if not was_altered:
        base = base_of(connection, run)
        dates = [day for day in dates if base is not None and day <= base.business_date and day not in but]
    return findings + [
        _changed_balance(
            run, row, row.effective_date, f"activity of run {run.run_id}",
            {
                "activity": "altered" if was_altered else "not what its rows say",
                "effective_date": str(row.effective_date),
            },
        )
        for row in _changed_balances(connection, run, dates)
        if was_altered or row.differs
    ]  # fmt: skip


def _dates_of(connection: Connection, run: Run) -> list[date]:
    """The business dates for which a run counted something, or is said to have."""
    keys, activity = tables.run_keys, tables.activity
    of_run = keys.c.run_id == run.run_id
    counted = select(keys.c.effective_date).where(of_run, keys.c.key_set.in_(["counted", "released"]))
    moved = select(activity.c.effective_date).where(activity.c.run_id == run.run_id)
    return sorted(connection.scalars(union(counted, moved)).all())


def _altered_snapshots(connection: Connection, run: Run) -> Sequence[Row[Any]]:
    return connection.execute(
        statement(connection, "verification.altered_snapshots"),
        {"run_id": run.run_id, "business_date": run.business_date, "genesis_run_id": run.genesis_run_id},
    ).all()


def _changed_balance(run: Run, row: Row[Any], day: date, subject: str, evidence: Mapping[str, Any]) -> Finding:
    """What a close stored of a balance on a date, and what it should be. ``subject``: what of the close differs."""
    stored, proven = Parts.of_row(row, "stored_"), Parts.of_row(row, "proven_")
    difference, gross = difference_of(stored.minus(proven))
    return Finding(
        CAUSE, "investigate", balance_key=row.balance_key, business_date=day, stored=stored, proven=proven,
        difference=f"{subject}|{difference}", gross_difference=gross, evidence={**_names(run), **evidence},
    )  # fmt: skip


def _names(run: Run) -> dict[str, Any]:
    return {"close": str(run.business_date), "run_id": run.run_id}
