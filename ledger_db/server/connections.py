"""Connections to the ledger: one engine a process, time-outs on every transaction, custom plans.

Each statement is planned with its own values: a generic plan for a key range scans far more than the range. Look-ups by
key use :func:`prepared_statements` instead.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, cast

import psycopg
from psycopg.pq import TransactionStatus
from sqlalchemy import Connection, Engine, create_engine, func, make_url, select, text
from sqlalchemy.engine import URL
from sqlalchemy.exc import OperationalError

from ledger_db.errors import ConfigurationError, Hint
from ledger_db.server import embedded
from ledger_db.server.catalogue import has_database
from ledger_db.server.holds import wait_to_hold
from ledger_db.settings import Settings, get_settings

APPLICATION_NAME = "ledger-eod"
DEFAULT_DATABASE = "ledger"

#: Memory for one sort or hash table of a statement over many rows.
WORK_MEM = "128MB"

_engines: dict[URL, Engine] = {}
_engines_lock = threading.Lock()


def normalised(url: str) -> URL:
    """The SQLAlchemy URL for the psycopg driver; takes any SQLAlchemy or libpq spelling of a PostgreSQL URL."""
    parsed = make_url(url.replace("postgres://", "postgresql://", 1)).set(drivername="postgresql+psycopg")
    user, password = parsed.query.get("user"), parsed.query.get("password")  # libpq accepts them there too
    return parsed.difference_update_query(["user", "password"]).set(
        username=user if isinstance(user, str) else None, password=password if isinstance(password, str) else None
    )


def display_url(url: URL) -> str:
    """A database URL without its passwords, to be shown."""
    if "sslpassword" in url.query:
        url = url.update_query_dict({"sslpassword": "***"})
    return url.render_as_string(hide_password=True)


def database_name(url: URL) -> str:
    """A database and where it is, for people; without user and password."""
    host = url.host or url.query.get("host") or "this machine"
    return f"{url.database} on {host if isinstance(host, str) else ', '.join(host)}"


def ledger_url(settings: Settings | None = None, *, make: bool = False) -> URL:
    """The ledger's URL. When none is set, starts the embedded server that the data folder has.

    ``make``: the embedded ledger is made where it is missing.

    Raises:
        ConfigurationError: none is set, and there is no embedded one. It is not made unless asked for: a job that lost
            its settings would find an empty ledger in order.
    """
    settings = settings or get_settings()
    if settings.database_url is not None:
        return normalised(settings.database_url.get_secret_value())
    if make or embedded.has_cluster(settings.data_folder):
        server = embedded.ensure_server(settings.data_folder)
        with _maintaining(server) as connection:
            if make:
                _ensure_database(connection)
            if has_database(connection, DEFAULT_DATABASE):
                return server.url(DEFAULT_DATABASE)
    raise ConfigurationError(
        f"no ledger is named: LEDGER_DATABASE_URL is not set, and {settings.data_folder.resolve()} has no embedded one",
        hint=Hint.name_the_ledger,
    )


def _ensure_database(connection: Connection) -> None:
    wait_to_hold(connection, "create database")
    if not has_database(connection, DEFAULT_DATABASE):
        connection.execute(text(f"CREATE DATABASE {DEFAULT_DATABASE}"))


@contextmanager
def _maintaining(server: embedded.EmbeddedServer) -> Iterator[Connection]:
    """A session in the server's maintenance database."""
    engine = create_engine(server.url("postgres"), isolation_level="AUTOCOMMIT")
    try:
        with engine.connect() as connection:
            yield connection
    finally:
        engine.dispose()


def make_engine(url: URL, *, settings: Settings | None = None) -> Engine:
    """An engine with a connection for each worker and the settings' time-outs on every session."""
    settings = settings or get_settings()
    options = (
        f"-c statement_timeout={settings.statement_timeout_seconds}s -c lock_timeout={settings.lock_timeout_seconds}s "
        "-c idle_in_transaction_session_timeout=300s -c idle_session_timeout=0 -c timezone=UTC "
        # whatever a role or database has as its default: a cut is taken after the wait for others that take one
        "-c default_transaction_isolation=read\\ committed "
        # a worker whose machine is gone must not keep its run for two hours, which is the system's default
        "-c tcp_keepalives_idle=30 -c tcp_keepalives_interval=10 -c tcp_keepalives_count=3"
    )
    return create_engine(
        url,
        pool_size=settings.workers + 2,
        max_overflow=4,
        pool_pre_ping=True,
        connect_args={
            "prepare_threshold": None,
            "application_name": APPLICATION_NAME,
            "options": f"{url.query['options']} {options}" if "options" in url.query else options,
            "client_encoding": "UTF8",  # postings.row_digest digests text as the session encodes it
            "connect_timeout": 10,
            "keepalives_idle": 30,
        },
    )


def ledger_engine(url: URL | None = None) -> Engine:
    """This process's engine for a ledger; the configured ledger by default."""
    url = url or ledger_url()
    with _engines_lock:
        if url not in _engines:
            _engines[url] = make_engine(url)
        return _engines[url]


def dispose_engines() -> None:
    """Close all pooled connections of this process, for instance before its server is stopped."""
    with _engines_lock:
        for engine in _engines.values():
            engine.dispose()
        _engines.clear()


@contextmanager
def transaction(engine: Engine | None = None) -> Iterator[Connection]:
    """One database transaction, on the configured ledger unless an engine is given.

    Committed at the end, rolled back on an exception.
    """
    with (engine or ledger_engine()).begin() as connection:
        yield connection


@contextmanager
def one_instant(engine: Engine | None = None) -> Iterator[Connection]:
    """A read-only transaction whose statements all see the same instant; on the configured ledger by default."""
    with transaction(engine) as connection:
        connection.execute(text("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY"))
        yield connection


def one_snapshot(connection: Connection) -> None:
    """Let all statements of a transaction see the same instant. It must be the first of them."""
    connection.execute(text("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ"))


@contextmanager
def prepared_statements(connection: Connection) -> Iterator[None]:
    """Prepare the block's statements on the server, for look-ups by key: their plan is the same for every key.

    Planning the posting rules takes longer than such a look-up. A session with many look-ups then plans only once. Left
    to itself, PostgreSQL may think a plan made with the values so much cheaper that it makes one at each call.
    """
    driver = cast(psycopg.Connection[Any], connection.connection.driver_connection)
    before, driver.prepare_threshold = driver.prepare_threshold, 0
    set_local(connection, "plan_cache_mode", "force_generic_plan")
    try:
        yield
    finally:
        if driver.info.transaction_status is TransactionStatus.INTRANS:  # else the setting is gone with it
            connection.execute(text("SET LOCAL plan_cache_mode TO DEFAULT"))
        driver.prepare_threshold = before


def reachable(engine: Engine) -> str:
    """The server's version.

    Raises:
        ConfigurationError: the server does not answer; the message holds no password.
    """
    try:
        with engine.connect() as connection:
            return str(connection.scalar(select(func.current_setting("server_version"))))
    except OperationalError as error:
        reason = str(error.orig).strip().splitlines()[-1] if error.orig else "no answer"
        raise ConfigurationError(f"cannot reach the ledger at {display_url(engine.url)}: {reason}") from None


def set_local(connection: Connection, setting: str, value: str) -> None:
    """Change a setting of PostgreSQL until this transaction ends. Both are constants of ours, never input.

    Takes no snapshot, as ``set_config`` would: a repeatable-read transaction sees the instant of its first statement.
    """
    connection.execute(text(f"SET LOCAL {setting} = '{value}'"))


def in_memory(connection: Connection) -> None:
    """Let each step of this transaction's statements take up to ``WORK_MEM``, so that none of it is written to disk.

    For statements over a bounded number of rows: a piece, a batch, a part of a digest.
    """
    set_local(connection, "work_mem", WORK_MEM)


def without_time_limit(connection: Connection) -> None:
    """Let this transaction's statements take any time: for a statement that covers everything, not one batch."""
    set_local(connection, "statement_timeout", "0")


def require_durable_commit(connection: Connection) -> None:
    """Make this transaction's commit wait for the disk, even where a role's default is not to wait."""
    connection.execute(
        select(func.set_config("synchronous_commit", "on", True)).where(
            func.current_setting("synchronous_commit") == "off"
        )
    )
