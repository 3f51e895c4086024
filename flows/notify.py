"""Write a notification into the log: where they go as long as no notification block is configured.

Safe to run again: it reads and changes nothing.
"""

from __future__ import annotations

import logging

from prefect import flow, runtime

from flows.parts import progress
from flows.parts.options import LEDGER_FLOW


def _run_name() -> str:
    return str(runtime.flow_run.parameters.get("subject") or "notification")


@flow(name="notify", flow_run_name=_run_name, **LEDGER_FLOW)
def notify(subject: str = "notification", body: str = "") -> None:
    """Write a notification as one warning, which is also this run's log in the Prefect UI.

    Args:
        subject: What happened, in a few words; the flow run is named by it.
        body: What a person needs to know to act.
    """
    progress.report(subject, level=logging.WARNING, operation="notify", status="notified", body=body)
