"""The project's Prefect automations: what they wait for and what they do, and how they get onto a Prefect server.

Installing creates what is missing and updates what differs from its declaration. An automation that agrees is not
touched: Prefect forgets what it was waiting for when it is updated. One that a user has switched off stays off.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, Literal
from uuid import UUID

from prefect.client.orchestration import SyncPrefectClient
from prefect.client.schemas.objects import StateType
from prefect.events.actions import ActionTypes, ChangeFlowRunState, RunDeployment, SendNotification
from prefect.events.schemas.automations import Automation, AutomationCore, EventTrigger, Posture
from prefect.exceptions import ObjectNotFound

from flows.parts.outcomes import REFUSED
from ledger_db.errors import ConfigurationError
from ledger_db.server.connections import database_name, normalised
from ledger_db.settings import Settings

#: The flows whose runs are watched. Not ``notify``: a notification about a late notification would never end.
WATCHED_FLOWS = ["end-of-day", "prepare-close", "reconstruct-balances", "snapshot-balances", "verify-balances"]
REVIEW_DEPLOYMENT = "reconstruct-balances/discrepancies"
LOG_DEPLOYMENT = "notify/log"

_FLOW_RUN = {"prefect.resource.id": "prefect.flow-run.*"}
_OF_A_WATCHED_FLOW: dict[str, Any] = {"prefect.resource.role": "flow", "prefect.resource.name": WATCHED_FLOWS}
_OF_A_DEPLOYMENT: dict[str, Any] = {"prefect.resource.role": "deployment"}
_LINK = " {{ flow_run|ui_url }}"
_PATH = " /runs/flow-run/{{ flow_run.id }}"
_END_OF_DAY = "ledger-eod.end-of-day.completed"


@dataclass(frozen=True)
class Start:
    """Start a deployment's flow, some time after the event."""

    deployment: str
    parameters: dict[str, Any]
    after: timedelta = timedelta(0)


@dataclass(frozen=True)
class Notify:
    """Send a notification; the texts are templates that Prefect's server fills in.

    ``is_of_a_run``: a link to the flow run is added. To a notification block it is whole; in the parameters of a
    deployment Prefect refuses its own filters, so that there it is the path.
    """

    subject: str
    body: str
    is_of_a_run: bool = True


@dataclass(frozen=True)
class Declaration:
    """One automation as it is declared."""

    name: str
    description: str
    trigger: EventTrigger
    action: Start | Notify | ChangeFlowRunState


@dataclass(frozen=True)
class Standing:
    """The state of an automation on a server. ``waiting_for``: the deployment that must be registered first."""

    name: str
    description: str
    state: Literal["installed", "differs", "not installed", "waiting"]
    wanted: AutomationCore | None = None
    installed: list[Automation] = field(default_factory=list)
    waiting_for: str | None = None

    @property
    def enabled(self) -> bool | None:
        """Whether it is switched on; None where it is not installed."""
        return self.installed[0].enabled if self.installed else None


def declarations(settings: Settings) -> list[Declaration]:
    """Every automation of the project."""
    review_window = timedelta(seconds=settings.review_window_seconds)
    end_of_day = timedelta(seconds=settings.end_of_day_expected_seconds)
    late = timedelta(seconds=settings.late_run_seconds)
    silent = timedelta(seconds=settings.silent_run_seconds)
    ledger = _ledger(settings)
    return [
        Declaration(
            "ledger-eod: report on discrepancies",
            f"When verification finds discrepancies, {REVIEW_DEPLOYMENT} reports {_shown(review_window)} later what "
            "would correct them; it changes no balance. What is found meanwhile is in the same report.",
            # Prefect fires on the first event and ignores the others of the same window.
            EventTrigger(
                posture=Posture.Reactive, expect={"ledger-eod.verification.found"}, within=review_window,
                match={"ledger-eod.scope": ["since-close", "from-genesis"]},
            ),
            Start(
                REVIEW_DEPLOYMENT,
                {
                    "select": "discrepancies",
                    "mode": "report",
                    "reason": "{{ event.resource.name }} found {{ event.payload.finding_count }} discrepancies, "
                    "{{ event.payload.opened_count }} of them new",
                },
                after=review_window,
            ),
        ),
        Declaration(
            "ledger-eod: discrepancies found",
            "When a verification found discrepancies, also such as are known.",
            EventTrigger(posture=Posture.Reactive, expect={"ledger-eod.verification.found"}),
            Notify(
                "{{ event.payload.finding_count }} "
                "{{ 'discrepancy' if event.payload.finding_count == 1 else 'discrepancies' }} "
                "in {{ event.payload.database }}",
                "{{ event.payload.summary }}. In all {{ event.payload.totals }} in minor units, the largest "
                "{{ event.payload.largest }}. Nothing was changed; what is to be done is in its table. Verified by "
                "{{ flow_run.name }}:",
            ),
        ),
        Declaration(
            "ledger-eod: approval awaited",
            "When a reconstruction waits for somebody else's approval.",
            EventTrigger(posture=Posture.Reactive, expect={"ledger-eod.reconstruction.awaiting-approval"}),
            Notify(
                "{{ event.resource.name }} awaits approval in {{ event.payload.database }}",
                "{{ event.payload.proposed_by or 'nobody named' }} proposes to correct "
                "{{ event.payload.proposed_count }} "
                "balances by {{ event.payload.totals }} gross, in minor units: {{ event.payload.reason }}. Somebody "
                "else must approve it. {{ event.payload.how }}:",
            ),
        ),
        Declaration(
            "ledger-eod: run is late",
            f"When a deployment's run has not started {_shown(late)} after Prefect called it late: no worker is at "
            "work, or all of them are busy.",
            # Any event of the run after Late ends the wait; Late itself does not count.
            EventTrigger(
                posture=Posture.Proactive, after={"prefect.flow-run.Late"}, expect={"prefect.flow-run.*"}, within=late,
                for_each={"prefect.resource.id"}, match=_FLOW_RUN, match_related=[_OF_A_WATCHED_FLOW, _OF_A_DEPLOYMENT],
            ),
            Notify(
                "{{ flow.name }} is late",
                f"The run {{{{ flow_run.name }}}} of {{{{ flow.name }}}} is late by more than {_shown(late)}: is a "
                f"worker at work, or is it busy? It starts when one is free. Ledger: {ledger}.",
            ),
        ),
        Declaration(
            "ledger-eod: run failed",
            "When a deployment's run failed for good, after its retries, or crashed. Not when it was refused as a "
            "person had asked for it, who sees that.",
            EventTrigger(
                posture=Posture.Reactive, expect={"prefect.flow-run.*"},
                match={
                    **_FLOW_RUN,
                    "prefect.state-type": [StateType.FAILED.value, StateType.CRASHED.value],
                    "prefect.state-name": f"!{REFUSED}",
                },
                match_related=[_OF_A_WATCHED_FLOW, _OF_A_DEPLOYMENT],
            ),
            Notify(
                "{{ flow.name }} {{ flow_run.state.name|lower }}",
                "The run {{ flow_run.name }} of {{ flow.name }} is {{ flow_run.state.name }}: "
                "{{ flow_run.state.message }}. What is done stays; run it again when the reason is gone. "
                f"Ledger: {ledger}.",
            ),
        ),
        Declaration(
            "ledger-eod: run is silent",
            f"When a running flow gave no heartbeat for {_shown(silent)} its process is dead: the run is marked as "
            "crashed, which frees its turn, and \"ledger-eod: run failed\" reports it.",
            # Each heartbeat restarts the wait; any other event, such as the end of the run, ends it.
            EventTrigger(
                posture=Posture.Proactive, after={"prefect.flow-run.heartbeat"}, expect={"prefect.flow-run.*"},
                within=silent, for_each={"prefect.resource.id"}, match=_FLOW_RUN, match_related=[_OF_A_WATCHED_FLOW],
            ),
            ChangeFlowRunState(
                state=StateType.CRASHED,
                message=f"no heartbeat for {_shown(silent)}: its process is dead; run it again, what is done stays",
            ),
        ),
        Declaration(
            "ledger-eod: no end of day",
            f"When no end of day has completed for {_shown(end_of_day)}: it failed, or nobody started it.",
            # Each end of day restarts the wait; installing starts the first one.
            EventTrigger(posture=Posture.Proactive, after={_END_OF_DAY}, expect={_END_OF_DAY}, within=end_of_day),
            Notify(
                "no end of day",
                f"No end of day has completed for {_shown(end_of_day)}. ledger-eod runs lists what is closed, "
                f"ledger-eod close closes what is not. Ledger: {ledger}.",
                is_of_a_run=False,
            ),
        ),
    ]  # fmt: skip


def standings(client: SyncPrefectClient, settings: Settings) -> Iterator[Standing]:
    """The state of each declared automation on the client's server. Changes nothing.

    Raises:
        ConfigurationError: the notification block is not there, or sends no notifications.
    """
    block_id = _notification_block(client, settings)
    for declaration in declarations(settings):
        name, description = declaration.name, declaration.description
        installed = client.read_automations_by_name(name)
        try:
            action = _action(client, declaration.action, block_id)
        except ObjectNotFound:
            waiting_for = declaration.action.deployment if isinstance(declaration.action, Start) else LOG_DEPLOYMENT
            yield Standing(name, description, "waiting", installed=installed, waiting_for=waiting_for)
            continue
        core = AutomationCore(
            name=name, description=description, tags=["ledger-eod"], trigger=declaration.trigger, actions=[action]
        )
        # Through JSON: Prefect's client sends only fields that were set, and the type of an action was not.
        wanted = AutomationCore.model_validate(core.model_dump(mode="json", exclude={"owner_resource"}))
        if not installed:
            yield Standing(name, description, "not installed", wanted)
        elif len(installed) == 1 and _content(installed[0]) == _content(wanted):
            yield Standing(name, description, "installed", wanted, installed)
        else:
            yield Standing(name, description, "differs", wanted, installed)


def install(client: SyncPrefectClient, settings: Settings) -> Iterator[tuple[Standing, str]]:
    """Create or update every automation as it is declared; yields each with created, updated, unchanged or waits.

    A second call changes nothing. One whose deployment is not registered yet is left as it is.

    Raises:
        ConfigurationError: the notification block is not there, or sends no notifications.
    """
    for standing in standings(client, settings):
        if standing.state == "waiting" or standing.wanted is None:
            yield standing, f"waits, there is no deployment {standing.waiting_for}"
        elif standing.state == "installed":
            yield standing, "unchanged"
        elif standing.state == "not installed":
            client.create_automation(standing.wanted)
            yield standing, "created"
        else:
            kept, *doubles = standing.installed
            if _content(kept) != _content(standing.wanted):
                client.update_automation(kept.id, standing.wanted.model_copy(update={"enabled": kept.enabled}))
            for double in doubles:  # two installed at the same time
                client.delete_automation(double.id)
            yield standing, "updated"


def remove(client: SyncPrefectClient, settings: Settings) -> list[str]:
    """Delete every automation of the project; returns the names of those that were there."""
    removed = []
    for declaration in declarations(settings):
        for installed in client.read_automations_by_name(declaration.name):
            client.delete_automation(installed.id)
            removed.append(declaration.name)
    return removed


def _action(
    client: SyncPrefectClient, action: Start | Notify | ChangeFlowRunState, block_id: UUID | None
) -> ActionTypes:
    if isinstance(action, ChangeFlowRunState):
        return action
    if isinstance(action, Notify):
        if block_id is not None:
            body = action.body + (_LINK if action.is_of_a_run else "")
            return SendNotification(block_document_id=block_id, subject=action.subject, body=body)
        body = action.body + (_PATH if action.is_of_a_run else "")
        action = Start(LOG_DEPLOYMENT, {"subject": action.subject, "body": body})
    deployment = client.read_deployment_by_name(action.deployment)
    return RunDeployment(deployment_id=deployment.id, parameters=action.parameters, schedule_after=action.after)


def _notification_block(client: SyncPrefectClient, settings: Settings) -> UUID | None:
    """The block that sends notifications, found by its name. Its secrets are not read."""
    if settings.notification_block is None:
        return None
    block_type, _, name = settings.notification_block.partition("/")
    try:
        block = client.read_block_document_by_name(name, block_type, include_secrets=False)
    except ObjectNotFound:
        raise ConfigurationError(
            f"LEDGER_NOTIFICATION_BLOCK: there is no block {settings.notification_block} on the Prefect server; make "
            "it there, or unset it to have notifications in the log"
        ) from None
    if block.block_schema is None or "notify" not in block.block_schema.capabilities:
        raise ConfigurationError(f"LEDGER_NOTIFICATION_BLOCK: {settings.notification_block} sends no notifications")
    return block.id


def _ledger(settings: Settings) -> str:
    """The ledger that the jobs work on, as the process that installs is configured."""
    if settings.database_url is None:
        return "the embedded one"
    return database_name(normalised(settings.database_url.get_secret_value()))


def _content(automation: AutomationCore) -> dict[str, Any]:
    """The declared fields of an automation: neither what the server adds, nor whether a user switched it off."""
    return automation.model_dump(exclude={"id", "enabled", "owner_resource"})


def _shown(duration: timedelta) -> str:
    """A duration for people: the largest unit that is whole."""
    seconds = round(duration.total_seconds())
    for unit, name in ((3600, "hour"), (60, "minute")):
        if seconds and seconds % unit == 0:
            return f"{seconds // unit} {name}{'s' if seconds > unit else ''}"
    return f"{seconds} second{'s' if seconds != 1 else ''}"
