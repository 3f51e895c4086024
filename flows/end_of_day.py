"""Close every business date that has ended and is not closed yet, in order, say what arrived late, then verify.

Safe to run again, twice at once, and to kill anywhere: what is certified stays, and the next call goes on from there.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date
from typing import Annotated, Any

from prefect import flow, get_run_logger, runtime
from prefect.client.schemas.objects import State
from prefect.states import Completed
from pydantic import Field
from sqlalchemy.exc import DBAPIError

from flows import reports
from flows.parts import outcomes
from flows.parts.clock import as_of, dated_name
from flows.snapshot_balances import Snapshotted, snapshot_balances
from flows.verify_balances import Verified, verify_balances
from ledger_db.errors import LedgerError, first_line, is_transient
from ledger_db.settings import get_settings
from tasks import close as closing
from tasks import verification as verifying
from tasks.close import Certificate
from tasks.logs import job_line


@dataclass(frozen=True)
class EndOfDay:
    """The closes one flow run certified, in order, and the verification after them, where one was due."""

    certificates: list[Certificate]
    verified: Verified | None = None

    @property
    def dates(self) -> list[date]:
        """The business dates it closed."""
        return [certificate.run.business_date for certificate in self.certificates]


def _run_name() -> str:
    return dated_name("end-of-day", runtime.flow_run.parameters.get("until"))


@flow(name="end-of-day", flow_run_name=_run_name, persist_result=False)
def end_of_day(
    since: date | None = None,
    until: date | None = None,
    batch_size: Annotated[int, Field(ge=1, le=1_000_000)] | None = None,
) -> EndOfDay | State[Any]:
    """Close every missing business date in order, up to the last one that has ended, then verify stored balances.

    Args:
        since: The first day to close on a ledger that has no close yet. Empty: only the last day that has ended.
        until: The last day to close, when not all of them are to be. Empty: the last day that has ended.
        batch_size: How many balances one database transaction writes, from 1 to 1,000,000. Empty: LEDGER_BATCH_SIZE.
    """
    certificates: list[Certificate] = []
    try:
        batch_size = batch_size or get_settings().batch_size
        for business_date in closing.find_dates_to_close(as_of(), since, until):
            state: State[Any] = snapshot_balances(business_date, "close", batch_size, return_state=True)
            if state.name == outcomes.AT_WORK:
                return outcomes.at_work(str(state.message))
            if state.name == outcomes.NOTHING_TO_DO:  # somebody else has certified it meanwhile
                continue
            result = state.result(raise_on_failure=False)
            if not state.is_completed() or not isinstance(result, Snapshotted):
                return _unfinished(business_date, state, result)
            certificates.append(result.certificate)
        _report(certificates)
        return _verify(certificates, batch_size)
    except (LedgerError, DBAPIError) as error:
        _say_failed(first_line(error))
        if is_transient(error):
            raise
        return outcomes.failed_for_good(first_line(error))


def _verify(certificates: list[Certificate], batch_size: int) -> EndOfDay | State[Any]:
    """Verify the stored balances from the newest close, also one that an earlier night left unverified.

    What is found does not undo a close: the flow completes and its message tells. Without a verdict it fails.
    """
    close = verifying.find_close_to_verify()
    if close is None:
        return EndOfDay(certificates)
    state: State[Any] = verify_balances("since-close", batch_size=batch_size, return_state=True)
    if state.name in (outcomes.AT_WORK, outcomes.NOTHING_TO_DO):
        return Completed(message=f"closed; {state.message}", data=EndOfDay(certificates))
    verified = state.result(raise_on_failure=False)
    if not isinstance(verified, Verified):
        if isinstance(verified, BaseException) and is_transient(verified):
            raise verified
        failure = f"closed up to {close.business_date}, but not verified: {state.message}"
        _say_failed(failure)
        return outcomes.failed_for_good(failure)
    night = EndOfDay(certificates, verified)
    if verified.report.verification.finding_count:
        return Completed(message=f"closed up to {close.business_date}; {verified.summary}", data=night)
    return night


def _unfinished(business_date: date, state: State[Any], result: Any) -> State[Any]:
    """Fail with what the close failed with; what is worth another try is raised, so that the flow's retries act."""
    if isinstance(result, BaseException) and is_transient(result):
        raise result  # the caller says so
    _say_failed(f"{business_date} is not closed: {state.message}")
    return outcomes.failed_for_good(f"{business_date} is not closed: {state.message}")


def _say_failed(error: str) -> None:
    get_run_logger().error(job_line("end of day failed", operation="end_of_day", status="failed", error=error))


def _report(certificates: list[Certificate]) -> None:
    logger = get_run_logger()
    if not certificates:
        logger.info(job_line("end of day completed", operation="end_of_day", status="completed", dates=[]))
        reports.announce_nothing_to_close(flow_run=runtime.flow_run.name)
        return
    late = sum(total.posting_count for certificate in certificates for total in certificate.late_totals)
    logger.info(
        job_line(
            "end of day completed",
            operation="end_of_day",
            status="completed",
            late_postings=late,
            dates=[certificate.run.business_date for certificate in certificates],
        )
    )
    last = certificates[-1].run
    reports.report_late_arrivals(certificates, reports.artifact_key("late-arrivals", last.business_date))
    reports.announce(
        "end-of-day.completed", last, late_postings=late, flow_run=runtime.flow_run.name,
        dates=[str(certificate.run.business_date) for certificate in certificates],
    )  # fmt: skip
