"""Count the transactions of the date in progress in advance, so that its close has little left to do.

Safe to run again, twice at once, and to kill anywhere: a piece that is counted stays, and the close counts what is not.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date
from typing import Any

from prefect import flow
from prefect.client.schemas.objects import State

from flows import reports
from flows.parts import outcomes
from flows.parts.batches import map_batches
from flows.parts.clock import as_of, dated_name
from flows.parts.options import UNRETRIED_FLOW
from flows.parts.progress import Job
from ledger_db.errors import NothingToPrepare, first_line
from tasks import close as closing

REASONS_NAMED = 5


@dataclass(frozen=True)
class PreparationResult:
    """How many pieces one flow run counted in advance for a business date, and the time it took."""

    business_date: date
    piece_count: int
    duration_ms: int


def _run_name() -> str:
    return dated_name("prepare-close", None, in_progress=True)


@flow(name="prepare-close", flow_run_name=_run_name, **UNRETRIED_FLOW)
def prepare_close() -> PreparationResult | State[Any]:
    """Count in advance what the date in progress has so far. The close takes over what is still as it was."""
    job = Job("preparation", {"operation": "prepare_close"})
    try:
        preparation = closing.open_preparation(as_of())
        job = job.about(business_date=preparation.business_date)
        job.started()
        piece_count = 0
        for run, pieces in preparation.work:
            mapped = map_batches(
                closing.count_pieces, run.run_id, pieces,
                progress_key=reports.artifact_key("progress", run.kind, run.business_date),
                description=f"{run.name}: {len(pieces)} pieces",
            )  # fmt: skip
            if mapped.failures and closing.reload_run(run.run_id).status != "open":
                return outcomes.nothing_to_do(f"{run.business_date}: its close came first")
            mapped.require_all("the other pieces are kept; the next run counts them", reasons=REASONS_NAMED)
            piece_count += len(pieces)
        if not piece_count:
            return outcomes.nothing_to_do(f"{preparation.business_date}: nothing new to count")
        job.completed(pieces=piece_count, duration_ms=job.duration_ms)
        return PreparationResult(preparation.business_date, piece_count, job.duration_ms)
    except NothingToPrepare as reason:
        return outcomes.nothing_to_do(str(reason))
    except Exception as error:
        job.failed(error=first_line(error), duration_ms=job.duration_ms)
        return outcomes.stopped_by(error)
