"""Certification: a run's figures are proved against its base and its activity, summed to zero, and frozen."""

from __future__ import annotations

from typing import Any

from sqlalchemy import Connection, text

from ledger_db.close.runs import Run, find_run, lock_open_run
from ledger_db.close.snapshots import plan_key_ranges
from ledger_db.core.amounts import PART_COLUMNS, whole
from ledger_db.errors import NotCertified, RunNotOpen
from ledger_db.postings.rules import statement
from ledger_db.server.connections import require_durable_commit


def certify_run(connection: Connection, run_id: int) -> Run:
    """Prove a run and freeze it; a certified one is returned as it is.

    Proved is: every balance has its row; per currency the rows add up to the base's totals plus the activity; credits
    equal debits, posted and inflight, but for itemised exceptions. Then totals, count and checksum are stored, and the
    commit waits for the disk, and with it for every batch.

    Raises:
        NotCertified: the first thing that does not prove, with expected, found and difference. The run stays open; the
            reason is returned to be stored by :func:`refuse_certification`.
    """
    try:
        run = lock_open_run(connection, run_id)
    except RunNotOpen:
        run = find_run(connection, run_id)  # as it is after the wait for whoever certified it
        if run.certified:
            return run
        raise
    connection.execute(text("SET LOCAL statement_timeout = 0"))
    require_durable_commit(connection)
    _prove_complete(connection, run)
    scope: dict[str, Any] = {"run_id": run_id, "business_date": run.business_date, "kind": run.kind}
    found = {row.currency: row for row in connection.execute(statement(connection, "close.total_snapshots"), scope)}
    captured = sum(row.balance_count for row in found.values())
    partial = run.kind == "interim" and _shares_its_date(connection, run)
    base = None if run.base_run_id is None else find_run(connection, run.base_run_id)
    expected = {
        row.currency: row
        for row in connection.execute(
            statement(connection, "close.expected_totals"),
            scope
            | {
                "base_run_id": run.base_run_id,
                "base_date": None if base is None else base.business_date,
                "partial": partial,
            },
        )
    }
    for currency in sorted(found.keys() | expected.keys()):
        _prove_currency(run, currency, found.get(currency), expected.get(currency), zero_sum=not partial)
    checksum = connection.scalar(statement(connection, "close.checksum_snapshots"), scope)
    if found:
        connection.execute(
            text(
                """
                INSERT INTO ledger_eod.run_totals (
                    run_id, currency, balance_count, credit_balance, debit_balance, inflight_credit_balance,
                    inflight_debit_balance, itemised_difference, itemised_inflight_difference
                ) VALUES (
                    :run_id, :currency, :balance_count, :credit_balance, :debit_balance, :inflight_credit_balance,
                    :inflight_debit_balance, :itemised_difference, :itemised_inflight_difference
                )
                """
            ),
            [
                {
                    "run_id": run_id,
                    **row._mapping,
                    "itemised_difference": getattr(expected.get(currency), "itemised_difference", 0),
                    "itemised_inflight_difference": getattr(expected.get(currency), "itemised_inflight_difference", 0),
                }
                for currency, row in found.items()
            ],
        )
    connection.execute(
        text(
            "UPDATE ledger_eod.runs SET status = 'certified', certified_at = clock_timestamp(), "
            "snapshot_count = :snapshot_count, checksum = :checksum, refusal = NULL WHERE run_id = :run_id"
        ),
        {"run_id": run_id, "snapshot_count": captured, "checksum": checksum},
    )
    return find_run(connection, run_id)


def refuse_certification(connection: Connection, run_id: int, reason: str) -> None:
    """Store why a run was not certified; it stays open."""
    connection.execute(
        text("UPDATE ledger_eod.runs SET refusal = :reason WHERE run_id = :run_id AND status = 'open'"),
        {"run_id": run_id, "reason": reason},
    )


def _prove_complete(connection: Connection, run: Run) -> None:
    missing = plan_key_ranges(connection, run.run_id, batch_size=1_000_000)
    if missing:
        count = sum(keys.balance_count for keys in missing)
        raise NotCertified(
            f"{run.name}: {count} balances have no snapshot, the first with key {missing[0].first_key}; "
            "run it again to write them"
        )
    if run.collected_at is None:
        raise NotCertified(f"{run.name}: its activity is not collected; run it again")


def _shares_its_date(connection: Connection, run: Run) -> bool:
    """Whether other runs hold some of the snapshots of this date and kind, so that this one has only the rest."""
    return bool(
        connection.scalar(
            text(
                "SELECT EXISTS (SELECT FROM ledger_eod.balance_snapshots WHERE business_date = :business_date "
                "AND kind = CAST(:kind AS ledger_eod.run_kind) AND run_id <> :run_id)"
            ),
            {"business_date": run.business_date, "kind": run.kind, "run_id": run.run_id},
        )
    )


def _prove_currency(run: Run, currency: str, found: Any, expected: Any, *, zero_sum: bool) -> None:
    for amount in PART_COLUMNS:
        is_, should_be = whole(getattr(found, amount, 0)), whole(getattr(expected, amount, 0))
        if is_ != should_be:
            raise NotCertified(
                f"{run.name} {currency} {amount}: snapshots add up to {is_}, base and activity to {should_be}, "
                f"difference {is_ - should_be:+}; verify the base run's snapshots before running it again"
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
