"""What commands work on: the configured ledger, and the Prefect server."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from sqlalchemy import Engine

from deployments import console
from ledger_db.settings import get_settings

if TYPE_CHECKING:
    from prefect.client.orchestration import SyncPrefectClient


def reachable_ledger(*, make: bool = False) -> Engine:
    """The configured ledger. ``make``: the embedded one is made where none is configured and none is there.

    Raises:
        ConfigurationError: it is not there or cannot be reached.
    """
    from ledger_db.server.connections import ledger_engine, ledger_url, reachable

    engine = ledger_engine(ledger_url(make=make))
    reachable(engine)
    return engine


def migrated_ledger(*, make: bool = False) -> Engine:
    """The configured ledger with this version's schema. The embedded one is migrated on the way where that is needed.

    ``make``: it is made, too, where none is configured and none is there.

    Raises:
        ConfigurationError: it is not there or cannot be reached.
        NotMigrated: it is not the embedded one, and has another schema.
    """
    from ledger_db.attach.migrate import migrate, require_current, schema_state

    engine = reachable_ledger(make=make)
    with engine.connect() as connection:
        if get_settings().database_url is not None:
            require_current(connection)
            return engine
        is_current = schema_state(connection).is_current
    if not is_current:
        migrate(engine)
    return engine


@contextmanager
def prefect_client() -> Iterator[SyncPrefectClient]:
    """A client of the configured Prefect server, else of the local one, which is started for it."""
    from deployments.orchestrator.server import orchestrator

    with console.err().status("starting the Prefect server"), orchestrator():
        from prefect.client.orchestration import get_client

        with get_client(sync_client=True) as client:
            yield client
