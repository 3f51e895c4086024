"""Run a flow now, in this process, and tell a person how it goes: one line a date, then what it adds up to.

The Prefect server records the run like a scheduled one, its log lines included; only the terminal is spared them.
"""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import date
from typing import Any, Literal

from deployments import display
from deployments.orchestrator.server import orchestrator
from ledger_db.errors import LedgerError, RunAtWork, first_line


class JobFailed(LedgerError):
    """The flow run did not complete; the message is what it failed with."""


def end_of_day_now(*, since: date | None, until: date | None = None, batch_size: int | None, verbose: bool) -> None:
    """Close what is to be closed and print what was.

    Raises:
        JobFailed: a date could not be closed; what was closed before stays.
        RunAtWork: another process is at it.
    """
    with _flow_run(verbose=verbose):
        from flows.end_of_day import EndOfDayResult, end_of_day

        result = completed(end_of_day(since=since, until=until, batch_size=batch_size, return_state=True))
    if isinstance(result, EndOfDayResult):
        _show(result.certificates)
        if result.verified is not None:
            display.out().print(result.verified.summary)
    else:
        display.out().print(result)


def snapshot_now(
    *, business_date: date | None, kind: Literal["close", "interim"], batch_size: int | None, verbose: bool
) -> None:
    """Snapshot every balance for a date and print what it adds up to.

    Raises:
        JobFailed: the run is not certified; what it wrote is kept.
        RunAtWork: another process is at it.
    """
    with _flow_run(verbose=verbose):
        from flows.snapshot_balances import SnapshotResult, snapshot_balances
        from ledger_db.settings import get_settings

        size = batch_size or get_settings().batch_size
        result = completed(snapshot_balances(business_date, kind, size, return_state=True))
    if isinstance(result, SnapshotResult):
        _show([result.certificate])
    else:
        display.out().print(result)


def verify_now(
    *,
    scope: Literal["since-close", "from-genesis", "checksums"],
    ledger_id: str | None,
    currency: str | None,
    balance_ids: list[str] | None,
    batch_size: int | None,
    verbose: bool,
) -> Any:
    """Verify stored balances and return the report.

    Raises:
        JobFailed: some balances have no verdict; what was found is kept.
        RunAtWork: another process is at it.
    """
    with _flow_run(verbose=verbose):
        from flows.verify_balances import verify_balances
        from ledger_db.settings import get_settings

        size = batch_size or get_settings().batch_size
        return completed(
            verify_balances(scope, ledger_id, currency, balance_ids, size, return_state=True)
        ).report  # fmt: skip


def reconstruct_now(
    *,
    balance_ids: list[str] | None,
    select: Literal["given", "discrepancies", "requested"],
    apply: bool,
    reason: str,
    proposed_by: str,
    verbose: bool,
) -> Any:
    """Reconstruct balances and return what came of it: a ``ReconstructionReport``.

    Raises:
        ApprovalNeeded: it would correct something that must be approved first; nothing was corrected.
        JobFailed: some balances could not be recalculated or corrected; what was corrected stays.
    """
    with _flow_run(verbose=verbose):
        from flows.parts.outcomes import AWAITING_APPROVAL
        from flows.reconstruct_balances import reconstruct_balances

        state: Any = reconstruct_balances(
            balance_ids, select, "apply" if apply else "report", reason, proposed_by, return_state=True
        )
        result = completed(state)
    if state.name == AWAITING_APPROVAL:
        raise ApprovalNeeded(result.report)
    return result


class ApprovalNeeded(Exception):
    """A proposal that somebody else must approve; ``report`` is the proposal, a ``ReconstructionReport``."""

    def __init__(self, report: Any) -> None:
        super().__init__("; ".join(report.reconstruction.approval_reasons or []))
        self.report = report


def completed(state: Any) -> Any:
    """What a flow run returned, or why it had nothing to do.

    Raises:
        JobFailed: it did not complete.
        RunAtWork: another process is at it.
    """
    from flows.parts.outcomes import AT_WORK, NOTHING_TO_DO

    if state.name == AT_WORK:
        raise RunAtWork(state.message)
    if state.name == NOTHING_TO_DO:
        return state.message
    result = state.result(raise_on_failure=False)
    if not state.is_completed():
        raise JobFailed(first_line(result) if isinstance(result, Exception) else str(state.message or state.name))
    return result


def _show(certificates: list[Any]) -> None:
    console = display.out()
    if not certificates:
        console.print("every business date that has ended is closed")
        return
    console.print(display.totals_table([(certificate.run, certificate.totals) for certificate in certificates]))
    console.print(
        display.late_line(
            [total for certificate in certificates for total in certificate.late_totals],
            [certificate.run.business_date for certificate in certificates],
        )
    )


@contextmanager
def _flow_run(*, verbose: bool) -> Iterator[None]:
    """A Prefect server to report to, and a terminal that shows progress instead of its log."""
    if not verbose:
        spare_the_terminal()
    console = display.err()
    with console.status("starting the Prefect server") as status, orchestrator(), showing_progress(status.update):
        yield


def spare_the_terminal() -> None:
    """Keep Prefect's log off the terminal, before its first import; the server still gets every line."""
    os.environ.setdefault("PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL", "CRITICAL")


@contextmanager
def showing_progress(update: Callable[[str], None]) -> Iterator[dict[int, dict[str, Any]]]:
    """Show the jobs' structured log lines while the block lasts; yields the last fields of each run that completed."""
    import prefect.main  # noqa: F401 - sets up logging, and drops the handlers it does not know

    handler = _ProgressHandler(update)
    logger = logging.getLogger("prefect.flow_runs")
    logger.addHandler(handler)
    try:
        yield handler.completed
    finally:
        logger.removeHandler(handler)


class _ProgressHandler(logging.Handler):
    def __init__(self, update: Callable[[str], None]) -> None:
        super().__init__(logging.INFO)
        self.update = update
        self.completed: dict[int, dict[str, Any]] = {}
        self.console = display.err()

    def emit(self, record: logging.LogRecord) -> None:
        """Show the line of a job's beginning or end; other lines are not for the terminal."""
        message, brace, rest = record.getMessage().partition(" {")
        if not brace or not message.startswith("balance snapshots "):
            return
        fields = json.loads(f"{{{rest}")
        date_and_kind = f"{fields['business_date']} {fields['kind']}"
        if fields["status"] == "started":
            self.update(f"{date_and_kind}: at work")
        elif fields["status"] == "completed":
            self.completed[fields["run_id"]] = fields
            self.console.print(
                f"{date_and_kind}: {fields['total_snapshots']:,} snapshots in {fields['duration_ms'] / 1000:.1f} s, "
                f"{fields['snapshots_per_second']:,} a second, checksum {str(fields['checksum'])[:12]}"
            )
