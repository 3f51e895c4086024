"""Close every business date that has ended and is not closed yet, in order, report late arrivals, then verify.

Safe to run again, twice at once, and to kill anywhere: what is certified stays, and the next call goes on from there.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date
from typing import Any, Literal

from prefect import flow, runtime
from prefect.client.schemas.objects import State
from prefect.states import Completed

from flows import events, reports
from flows.parts import outcomes
from flows.parts.clock import as_of, dated_name
from flows.parts.hints import with_hint
from flows.parts.options import LEDGER_FLOW, BatchSize, batch_size_or_setting
from flows.parts.progress import Job
from flows.snapshot_balances import SnapshotResult, snapshot_balances
from flows.verify_balances import VerificationOutcome, verify_balances
from ledger_db.errors import Hint, first_line
from tasks import close as closing
from tasks import verification as verifying
from tasks.close import Certificate


@dataclass(frozen=True)
class EndOfDayResult:
    """The closes one flow run certified, in order, and the verification after them, where one was due."""

    certificates: list[Certificate]
    verified: VerificationOutcome | None = None

    @property
    def dates(self) -> list[date]:
        """The business dates it closed."""
        return [certificate.run.business_date for certificate in self.certificates]


def _run_name() -> str:
    return dated_name("end-of-day", runtime.flow_run.parameters.get("until"))


@flow(name="end-of-day", flow_run_name=_run_name, **LEDGER_FLOW)
def end_of_day(
    since: date | None = None,
    until: date | None = None,
    batch_size: BatchSize = None,
    first_close: Literal["ask", "from-first-posting", "only-last"] = "ask",
    confirmed: bool = False,
) -> EndOfDayResult | State[Any]:
    """Close every missing business date in order, up to the last one that has ended, then verify stored balances.

    Args:
        since: The first day to close on a ledger that has no close yet. Empty: as first_close says.
        until: The last day to close, when not all of them are to be. Empty: the last day that has ended.
        batch_size: How many balances one database transaction writes, from 1 to 1,000,000. Empty: LEDGER_BATCH_SIZE.
        first_close: Where the closes of a ledger without one begin; what was posted before is in the first close. It
            is kept. ask: as was chosen before, and on a new ledger with the last day that has ended.
        confirmed: Also when the first day lies more than a month before the first posting, or ten years back.
    """
    job = Job("end of day", {"operation": "end_of_day"})
    certificates: list[Certificate] = []
    try:
        batch_size = batch_size_or_setting(batch_size)
        dates = closing.find_dates_to_close(
            as_of(), since, until, None if first_close == "ask" else first_close, confirmed=confirmed
        )
        for business_date in dates:
            state: State[Any] = snapshot_balances(business_date, "close", batch_size, return_state=True)
            if state.name == outcomes.AT_WORK:
                return outcomes.at_work(str(state.message))
            if state.name == outcomes.NOTHING_TO_DO:  # another process has certified it in the meantime
                continue
            closed = outcomes.result_of(state, SnapshotResult, f"{business_date} is not closed")
            certificates.append(closed.certificate)
        _report(certificates, job)
        return _verify(certificates, batch_size)
    except outcomes.LEDGER_ERRORS as error:
        job.failed(error=first_line(error))
        return outcomes.stopped_by(error)


def _verify(certificates: list[Certificate], batch_size: int) -> EndOfDayResult | State[Any]:
    """Verify the stored balances from the newest close, also one that an earlier night left unverified.

    Findings do not undo a close: the flow completes, and its message reports them.

    Raises:
        BatchFailed: the verification did not complete. The closes stay.
    """
    close = verifying.find_close_to_verify()
    if close is None:
        return EndOfDayResult(certificates)
    state: State[Any] = verify_balances("since-close", batch_size=batch_size, return_state=True)
    if state.name in (outcomes.AT_WORK, outcomes.NOTHING_TO_DO):
        return Completed(message=f"closed; {state.message}", data=EndOfDayResult(certificates))
    closed = f"closed up to {close.business_date}"
    verified = outcomes.result_of(state, VerificationOutcome, f"{closed}, but not verified")
    result = EndOfDayResult(certificates, verified)
    if verified.report.verification.finding_count:
        message = with_hint(f"{closed}; {verified.summary}", Hint.list_discrepancies)
        return Completed(name=outcomes.FOUND, message=message, data=result)
    return result


def _report(certificates: list[Certificate], job: Job) -> None:
    """One log line, a table of what arrived late, one event."""
    flow_run = runtime.flow_run.name
    if not certificates:
        job.completed(dates=[])
        events.announce_nothing_to_close(flow_run=flow_run)
        return
    late = sum(total.posting_count for certificate in certificates for total in certificate.late_totals)
    dates = [certificate.run.business_date for certificate in certificates]
    job.completed(late_postings=late, dates=dates)
    reports.report_late_arrivals(certificates, reports.artifact_key("late-arrivals", dates[-1]))
    events.announce_run(
        "end-of-day.completed", certificates[-1].run, late_postings=late, flow_run=flow_run,
        dates=[str(business_date) for business_date in dates],
    )  # fmt: skip
