"""Bring a database to this version's schema: make the ledger's tables, or adopt the ones Blnk made."""

from __future__ import annotations

import time
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, Engine, text
from sqlalchemy.exc import DBAPIError

from ledger_db.core.metadata import EOD_SCHEMA
from ledger_db.errors import ConfigurationError, NotMigrated, sqlstate_of
from ledger_db.server.holds import try_to_hold

OLDEST_POSTGRES = 14


@dataclass(frozen=True)
class SchemaState:
    """The migration a database is at (None: none) and the one this version wants."""

    current: str | None
    head: str

    @property
    def is_current(self) -> bool:
        """Whether nothing is left to do."""
        return self.current == self.head


def _config() -> Config:
    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent / "migrations").replace("%", "%%"))
    config.set_main_option("path_separator", "os")
    return config


@lru_cache(maxsize=1)
def head() -> str:
    """The migration this version wants."""
    revision = ScriptDirectory.from_config(_config()).get_current_head()
    assert revision is not None  # noqa: S101 - the package ships its migrations
    return revision


def schema_state(connection: Connection) -> SchemaState:
    """How far a database is migrated; reads only."""
    context = MigrationContext.configure(
        connection, opts={"version_table": "schema_version", "version_table_schema": EOD_SCHEMA}
    )
    return SchemaState(current=context.get_current_revision(), head=head())


def require_current(connection: Connection) -> None:
    """Refuse to work on a database whose schema is not this version's.

    Raises:
        NotMigrated: says which way it differs and what to run.
    """
    state = schema_state(connection)
    if not state.is_current:
        raise NotMigrated(
            f"the database's schema is at {state.current or 'nothing'}, this version needs {state.head}: "
            "run ledger-eod migrate (or install the version that wrote it)"
        )


def _take_turns(connection: Connection) -> None:
    """Wait for another migration to end, holding no snapshot meanwhile: its concurrent index builds wait for those."""
    while not try_to_hold(connection, "migrate"):
        connection.rollback()
        time.sleep(0.2)
    connection.commit()


def migrate(engine: Engine) -> SchemaState:
    """Run the missing migrations, one transaction each; a second call, also at the same time, changes nothing.

    Raises:
        ConfigurationError: the server is too old, the rights are missing or the ledger is too busy to lock for a
            moment; what was done before stays, and the next call goes on from there.
    """
    with engine.connect() as connection:
        major = int(connection.scalar(text("SELECT current_setting('server_version_num')::int / 10000")) or 0)
        if major < OLDEST_POSTGRES:
            raise ConfigurationError(f"PostgreSQL {major} is too old: this project needs {OLDEST_POSTGRES} or later")
        before = schema_state(connection)
        connection.rollback()
        try:
            _take_turns(connection)
            connection.execute(text(f"CREATE SCHEMA IF NOT EXISTS {EOD_SCHEMA}"))
            connection.commit()
            config = _config()
            config.attributes["connection"] = connection
            command.upgrade(config, "head")
            connection.commit()
        except DBAPIError as error:
            connection.rollback()
            reason = str(error.orig).strip().splitlines()[0]
            hint = " (the ledger was too busy to lock; try again)" if sqlstate_of(error) == "55P03" else ""
            raise ConfigurationError(f"migration failed: {reason}{hint}") from error
        except ValueError as error:
            connection.rollback()
            raise ConfigurationError(str(error)) from error
        finally:
            connection.invalidate()  # ends the session, and with it the advisory lock and the changed limits
    return SchemaState(current=before.current, head=head())
