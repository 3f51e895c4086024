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


def reachable_ledger() -> Engine:
    """The configured ledger.

    Raises:
        ConfigurationError: it cannot be reached.
    """
    from ledger_db.server.connections import ledger_engine, reachable

    engine = ledger_engine()
    reachable(engine)
    return engine


def migrated_ledger() -> Engine:
    """The configured ledger with this version's schema. The embedded one is migrated on the way where that is needed.

    Raises:
        ConfigurationError: it cannot be reached.
        NotMigrated: it is not the embedded one, and has another schema.
    """
    from ledger_db.attach.migrate import migrate, require_current, schema_state

    engine = reachable_ledger()
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
