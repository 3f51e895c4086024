"""Say one thing in the log: where notifications go as long as no notification block is configured.

Safe to run again: it reads and writes nothing.
"""

from __future__ import annotations

from prefect import flow, get_run_logger, runtime

from tasks.logs import job_line


def _run_name() -> str:
    return str(runtime.flow_run.parameters.get("subject") or "notification")


@flow(name="notify", flow_run_name=_run_name, persist_result=False)
def notify(subject: str = "notification", body: str = "") -> None:
    """Write a notification as one warning, which is also this run's log in the Prefect UI.

    Args:
        subject: What happened, in a few words; the flow run is named by it.
        body: What a person needs to know to act.
    """
    get_run_logger().warning(job_line(subject, operation="notify", status="notified", body=body))
