"""Certification: a run's figures are proved against its base and its activity, summed to zero, and frozen."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sqlalchemy import Connection, Row, exists, func, insert, select, update

from ledger_db.close import tables
from ledger_db.close.cut import base_of, base_parameters
from ledger_db.close.figure_digests import store_figure_digests
from ledger_db.close.new_chain import require_approval
from ledger_db.close.runs import Run, find_run, lock_open_run, require_no_preparation
from ledger_db.close.snapshots import base_date_of, plan_key_ranges
from ledger_db.core.amounts import PART_COLUMNS, whole
from ledger_db.errors import Hint, NotCertified, RunNotOpen
from ledger_db.postings.rules import statement
from ledger_db.server.connections import in_memory, require_durable_commit, without_time_limit


def certify_run(connection: Connection, run_id: int) -> Run:
    """Prove a run and freeze it; a certified one is returned as it is.

    Proved is: each key is counted once; every balance has its row; per currency the rows add up to the base's totals
    plus the activity; credits equal debits, posted and inflight, but for itemised exceptions; the activity is what the
    counted rows say. Then totals, count, checksum and digests are stored, and the commit waits for the disk, and with
    it for every piece and batch.

    Raises:
        NotCertified: the first thing that does not prove, with expected, found and difference. The run stays open; the
            reason is returned to be stored by :func:`refuse_certification`.
        NotApproved: it begins a new chain, and nobody else than the proposer has approved that.
    """
    try:
        run = lock_open_run(connection, run_id)
    except RunNotOpen:
        run = find_run(connection, run_id)  # as it is after the wait for whoever certified it
        if run.certified:
            return run
        raise
    require_no_preparation(run)
    without_time_limit(connection)
    require_durable_commit(connection)
    in_memory(connection)
    _prove_complete(connection, run)
    _prove_keys(connection, run)
    partial = run.kind == "interim" and _shares_its_date(connection, run)
    found = _total_snapshots(connection, run)
    expected = _expected_totals(connection, run, partial=partial)
    for currency in sorted(found.keys() | expected.keys()):
        _prove_currency(run, currency, found.get(currency), expected.get(currency), zero_sum=not partial)
    _prove_amounts(connection, run)
    require_approval(connection, run)
    _store_totals(connection, run, found, expected)
    this_run = update(tables.runs).where(tables.runs.c.run_id == run_id)
    connection.execute(
        this_run.values(
            certified_at=func.clock_timestamp(),
            snapshot_count=sum(row.balance_count for row in found.values()),
            checksum=checksum_snapshots(connection, run),
            refusal=None,
        )
    )
    store_figure_digests(connection, run_id)  # which covers these, and is stored of an open run only
    connection.execute(this_run.values(status="certified"))
    return find_run(connection, run_id)


def refuse_certification(connection: Connection, run_id: int, reason: str) -> None:
    """Store why a run was not certified; it stays open."""
    runs = tables.runs
    connection.execute(update(runs).where(runs.c.run_id == run_id, runs.c.status == "open").values(refusal=reason))


def checksum_snapshots(connection: Connection, run: Run) -> str | None:
    """One SHA-256 over a run's snapshots as they are now; None for a run without rows."""
    checksum: str | None = connection.scalar(statement(connection, "close.checksum_snapshots"), _scope(run))
    return checksum


def _scope(run: Run) -> dict[str, Any]:
    return {"run_id": run.run_id, "business_date": run.business_date, "kind": run.kind}


def _total_snapshots(connection: Connection, run: Run) -> dict[str, Row[Any]]:
    """What a run's snapshots add up to, by currency."""
    rows = connection.execute(statement(connection, "close.total_snapshots"), _scope(run))
    return {row.currency: row for row in rows}


def _expected_totals(connection: Connection, run: Run, *, partial: bool) -> dict[str, Row[Any]]:
    """What they must add up to, by currency; ``partial``: other runs have the rest of the date's snapshots."""
    rows = connection.execute(
        statement(connection, "close.expected_totals"),
        _scope(run) | {"base_run_id": run.base_run_id, "base_date": base_date_of(connection, run), "partial": partial},
    )
    return {row.currency: row for row in rows}


def _store_totals(
    connection: Connection, run: Run, found: Mapping[str, Row[Any]], expected: Mapping[str, Row[Any]]
) -> None:
    if not found:
        return
    itemised = ("itemised_difference", "itemised_inflight_difference")
    connection.execute(
        insert(tables.run_totals),
        [
            {"run_id": run.run_id, **row._mapping}
            | {name: getattr(expected.get(currency), name, 0) for name in itemised}
            for currency, row in found.items()
        ],
    )


def _prove_complete(connection: Connection, run: Run) -> None:
    missing = plan_key_ranges(connection, run.run_id, batch_size=1_000_000)
    if missing:
        count = sum(keys.balance_count for keys in missing)
        raise NotCertified(
            f"{run.name}: {count} balances have no snapshot, the first with key {missing[0].first_key}",
            hint=Hint.run_again,
        )
    if run.collected_at is None:
        raise NotCertified(f"{run.name}: its rows are not counted", hint=Hint.run_again)


def _prove_keys(connection: Connection, run: Run) -> None:
    """Each key that the run had to look at is in one set, and in no set of an earlier close of its chain."""
    base = base_parameters(connection, base_of(connection, run))
    for row in connection.execute(
        statement(connection, "close.prove_keys"),
        {
            "run_id": run.run_id,
            "max_transaction_key": run.max_transaction_key,
            "is_whole": run.stores_all_pending,
            **base,
        },
    ):
        raise NotCertified(f"{run.name}: {row.fault}, the first in keys {row.keys}")


def _prove_amounts(connection: Connection, run: Run) -> None:
    """Each piece moved what its rows say, two balances a row: both are sums of the same rows, made apart."""
    for row in connection.execute(statement(connection, "close.prove_amounts"), {"run_id": run.run_id}):
        raise NotCertified(
            f"{run.name}: piece {row.piece}, {row.what}: its rows say {whole(row.rows_say)}, its activity "
            f"moved {whole(row.activity_says)}"
        )


def _shares_its_date(connection: Connection, run: Run) -> bool:
    """Whether other runs hold some of the snapshots of this date and kind, so that this one has only the rest."""
    snapshots = tables.balance_snapshots
    others = exists().where(
        snapshots.c.business_date == run.business_date,
        snapshots.c.kind == run.kind,
        snapshots.c.run_id != run.run_id,
    )
    return bool(connection.scalar(select(others)))


def _prove_currency(run: Run, currency: str, found: Any, expected: Any, *, zero_sum: bool) -> None:
    for amount in PART_COLUMNS:
        is_, should_be = whole(getattr(found, amount, 0)), whole(getattr(expected, amount, 0))
        if is_ != should_be:
            raise NotCertified(
                f"{run.name} {currency} {amount}: snapshots add up to {is_}, base and activity to {should_be}, "
                f"difference {is_ - should_be:+}",
                hint=Hint.verify_checksums,
            )
    if found is None or not zero_sum:
        return
    for what, credit, debit, explained in (
        ("posted", found.credit_balance, found.debit_balance, "itemised_difference"),
        ("inflight", found.inflight_credit_balance, found.inflight_debit_balance, "itemised_inflight_difference"),
    ):
        difference = whole(credit) - whole(debit)  # as integers: Decimal rounds a difference at 28 digits
        itemised = whole(getattr(expected, explained, 0))
        if difference != itemised:
            raise NotCertified(
                f"{run.name} {currency} {what}: credits minus debits are {difference}, itemised exceptions explain "
                f"{itemised}, unexplained {difference - itemised:+}"
            )
