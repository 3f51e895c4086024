"""Run a flow now, in this process, and show its progress: one line for each date, then the totals.

The Prefect server records the run like a scheduled one, with its log lines; only the terminal does not show them.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import date
from typing import TYPE_CHECKING, Any, Literal

from deployments import console, tables
from deployments.orchestrator.server import orchestrator
from ledger_db.errors import LedgerError, NothingSelected, RunAtWork, first_line

if TYPE_CHECKING:
    from flows.parts.progress import JobEvent

CHECKSUM_DIGITS = 12  # of a checksum, in a line of progress


class JobFailed(LedgerError):
    """A flow run failed with something else than an error of the ledger; the message is its first line."""


class ApprovalNeeded(Exception):
    """A proposal that somebody else must approve. ``report``: the reconstruction with its results."""

    def __init__(self, report: Any) -> None:
        super().__init__("; ".join(report.reconstruction.approval_reasons or []))
        self.report = report


def end_of_day_now(
    *,
    since: date | None,
    until: date | None = None,
    first_close: Literal["ask", "from-first-posting", "only-last"] = "ask",
    confirmed: bool = False,
    batch_size: int | None,
    verbose: bool,
) -> None:
    """Close every date that has ended and is not closed, and print the totals.

    Raises:
        LedgerError: a date could not be closed; dates that were closed before stay closed.
        RunAtWork: another process is at work on it.
    """
    with _flow_run(verbose=verbose):
        from flows.end_of_day import end_of_day

        result = completed(
            end_of_day(since, until, batch_size, first_close=first_close, confirmed=confirmed, return_state=True)
        )
    if isinstance(result, str):
        console.out().print(result)
        return
    _show(result.certificates, until=until)
    if result.verified is not None:
        found = result.verified.report.verification.finding_count
        where = "; ledger-eod discrepancies lists them" if found else ""
        console.out().print(f"{result.verified.summary}{where}")


def prepare_close_now(*, verbose: bool) -> None:
    """Count in advance what the date in progress has so far.

    Raises:
        LedgerError: some pieces could not be counted; the others are kept.
    """
    with _flow_run(verbose=verbose):
        from flows.prepare_close import prepare_close

        result = completed(prepare_close(return_state=True))
    if isinstance(result, str):
        console.out().print(result)
    else:
        pieces = "1 piece" if result.piece_count == 1 else f"{result.piece_count} pieces"
        console.out().print(f"{result.business_date}: {pieces} counted in advance in {result.duration_ms / 1000:.1f} s")


def snapshot_now(
    *, business_date: date | None, kind: Literal["close", "interim"], batch_size: int | None, verbose: bool
) -> None:
    """Snapshot every balance for a date and print the totals.

    Raises:
        LedgerError: the run is not certified; its snapshots are kept.
        RunAtWork: another process is at work on it.
    """
    with _flow_run(verbose=verbose):
        from flows.snapshot_balances import snapshot_balances

        result = completed(snapshot_balances(business_date, kind, batch_size, return_state=True))
    if isinstance(result, str):
        console.out().print(result)
    else:
        _show([result.certificate])


def verify_now(
    *,
    scope: Literal["since-close", "from-genesis", "checksums"],
    ledger_id: str | None,
    currency: str | None,
    balance_ids: list[str] | None,
    batch_size: int | None,
    verbose: bool,
) -> Any:
    """Verify stored balances; returns the verification with its discrepancies and totals.

    Raises:
        LedgerError: some balances could not be compared; what was found is kept.
        RunAtWork: another process is at work on it.
    """
    with _flow_run(verbose=verbose):
        from flows.verify_balances import verify_balances

        state: Any = verify_balances(scope, ledger_id, currency, balance_ids, batch_size, return_state=True)
        return completed(state).report


def reconstruct_now(
    *,
    balance_ids: list[str] | None,
    select: Literal["given", "discrepancies", "requested"],
    apply: bool,
    reason: str,
    proposed_by: str,
    verbose: bool,
) -> Any:
    """Reconstruct balances; returns the reconstruction with its results and corrections.

    Raises:
        ApprovalNeeded: a correction must be approved first; nothing was corrected.
        LedgerError: some balances could not be recalculated or corrected; corrections that were made stay.
        NothingSelected: no balance is selected.
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
    if isinstance(result, str):
        raise NothingSelected(result)
    return result


def completed(state: Any) -> Any:
    """The result of a flow run; a text, the reason, where there was nothing to do.

    Raises:
        LedgerError: it failed; the error of the ledger that it failed with, else a JobFailed.
        RunAtWork: another process is at work on it.
    """
    from flows.parts.outcomes import AT_WORK, NOTHING_TO_DO

    if state.name == AT_WORK:
        raise RunAtWork(state.message)
    if state.name == NOTHING_TO_DO:
        return state.message
    result = state.result(raise_on_failure=False)
    if state.is_completed():
        return result
    if isinstance(result, LedgerError):
        raise result
    raise JobFailed(first_line(result) if isinstance(result, Exception) else str(state.message or state.name))


def _show(certificates: list[Any], *, until: date | None = None) -> None:
    """The totals of each closed date, and what arrived late."""
    out = console.out()
    if not certificates:
        out.print(f"closed up to {until} already" if until else "every business date that has ended is closed")
        return
    out.print(tables.totals_table([(certificate.run, certificate.totals) for certificate in certificates]))
    out.print(
        tables.late_line(
            [total for certificate in certificates for total in certificate.late_totals],
            [certificate.run.business_date for certificate in certificates],
        )
    )


@contextmanager
def _flow_run(*, verbose: bool) -> Iterator[None]:
    """A Prefect server that records the run, and a terminal that shows progress instead of Prefect's log."""
    if not verbose:
        quiet_console()
    with (
        console.err().status("starting the Prefect server") as status,
        orchestrator(),
        showing_progress(status.update),
    ):
        yield


def quiet_console() -> None:
    """Keep Prefect's log off the terminal; the server still gets every line. Call it before Prefect is imported."""
    os.environ.setdefault("PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL", "CRITICAL")


@contextmanager
def showing_progress(update: Callable[[str], None]) -> Iterator[dict[int, Mapping[str, Any]]]:
    """Show the snapshots of each date while the block lasts; yields the facts of each completed run by its id."""
    from flows.parts.progress import watching

    facts_by_run: dict[int, Mapping[str, Any]] = {}
    err = console.err()

    def show(event: JobEvent) -> None:
        if event.operation != "balance_snapshots":
            return
        facts = event.facts
        date_and_kind = f"{facts['business_date']} {facts['kind']}"
        if event.status == "started":
            update(f"{date_and_kind}: at work")
        elif event.status == "completed":
            facts_by_run[facts["run_id"]] = facts
            err.print(
                f"{date_and_kind}: {facts['total_snapshots']:,} snapshots in {facts['duration_ms'] / 1000:.1f} s, "
                f"{facts['snapshots_per_second']:,} a second, checksum {str(facts['checksum'])[:CHECKSUM_DIGITS]}"
            )

    with watching(show):
        yield facts_by_run
