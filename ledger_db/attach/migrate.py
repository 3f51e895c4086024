"""Migrate a database to this version's schema: create the ledger's tables, or adopt those that Blnk created."""

from __future__ import annotations

import time
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Final

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, Engine, Integer, cast, func, select
from sqlalchemy.exc import DBAPIError
from sqlalchemy.schema import CreateSchema

from ledger_db.core.metadata import EOD_SCHEMA
from ledger_db.errors import ConfigurationError, Hint, NotMigrated, sqlstate_of
from ledger_db.server.holds import try_to_hold

OLDEST_POSTGRES = 14

_VERSION_TABLE: Final = {"version_table": "schema_version", "version_table_schema": EOD_SCHEMA}


@dataclass(frozen=True)
class SchemaState:
    """The newest migration of a database, or None, and the one that this version needs."""

    current: str | None
    head: str

    @property
    def is_current(self) -> bool:
        """Whether the database has this version's schema."""
        return self.current == self.head


def _config() -> Config:
    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent / "migrations").replace("%", "%%"))
    config.set_main_option("path_separator", "os")
    return config


@lru_cache(maxsize=1)
def head() -> str:
    """The migration that this version needs."""
    revision = ScriptDirectory.from_config(_config()).get_current_head()
    assert revision is not None  # noqa: S101 - the package ships its migrations
    return revision


def schema_state(connection: Connection) -> SchemaState:
    """How far a database is migrated; reads only."""
    context = MigrationContext.configure(connection, opts=_VERSION_TABLE)
    return SchemaState(current=context.get_current_revision(), head=head())


def require_current(connection: Connection) -> None:
    """Refuse to work on a database whose schema is not this version's.

    Raises:
        NotMigrated: the schema is older or newer; the message gives both versions.
    """
    state = schema_state(connection)
    if not state.is_current:
        raise NotMigrated(
            f"the database's schema is at {state.current or 'nothing'}, this version needs {state.head}",
            hint=Hint.migrate,
        )


def _take_turns(connection: Connection) -> None:
    """Wait for another migration to end, without a snapshot: its concurrent index builds would wait for that."""
    while not try_to_hold(connection, "migrate"):
        connection.rollback()
        time.sleep(0.2)
    connection.commit()


def migrate(engine: Engine) -> SchemaState:
    """Run the missing migrations, one transaction each. A second call changes nothing, also at the same time.

    Raises:
        ConfigurationError: the server is too old, rights are missing, or the ledger is too busy to be locked for a
            moment. Migrations that were completed stay, and the next call continues after them.
    """
    with engine.connect() as connection:
        version = connection.scalar(select(cast(func.current_setting("server_version_num"), Integer)))
        major = (version or 0) // 10_000
        if major < OLDEST_POSTGRES:
            raise ConfigurationError(f"PostgreSQL {major} is too old: this project needs {OLDEST_POSTGRES} or later")
        before = schema_state(connection)
        connection.rollback()
        try:
            _take_turns(connection)
            connection.execute(CreateSchema(EOD_SCHEMA, if_not_exists=True))
            connection.commit()
            config = _config()
            config.attributes.update(connection=connection, **_VERSION_TABLE)
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
