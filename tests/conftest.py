"""One PostgreSQL for the whole test session, one migrated template in it, one clone of that for each test.

``LEDGER_DATABASE_URL`` names a server to test on; without it the embedded one is started in a folder of its own, which
pytest-xdist's workers share. Nothing else of the developer's environment reaches a test.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import URL

from ledger_db.attach.migrate import migrate
from ledger_db.server import connections as database
from ledger_db.server import embedded
from ledger_db.settings import Settings, get_settings
from tests.testing.books import Books, Ledger
from tests.testing.databases import administer, database_of

#: Kept for this session's workers, which start with the controller's environment.
SERVER_FOLDER_VARIABLE = "EOD_TEST_SERVER_FOLDER"
EXTERNAL_SERVER = os.environ.get("LEDGER_DATABASE_URL", "").strip()


def _is_controller() -> bool:
    return "PYTEST_XDIST_WORKER" not in os.environ


def pytest_configure(config: pytest.Config) -> None:
    if _is_controller() and not EXTERNAL_SERVER:
        # Not in pytest's own folder: another session closes that to the server's user as it starts.
        os.environ[SERVER_FOLDER_VARIABLE] = tempfile.mkdtemp(prefix="eod-tests-")


def pytest_unconfigure(config: pytest.Config) -> None:
    if _is_controller() and (folder := os.environ.pop(SERVER_FOLDER_VARIABLE, None)) is not None:
        embedded.stop(Path(folder))
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="session")
def server_url() -> Iterator[URL]:
    """A server on which databases can be made: the URL of its maintenance database."""
    if EXTERNAL_SERVER:
        yield database.normalised(EXTERNAL_SERVER)
        return
    folder = Path(os.environ[SERVER_FOLDER_VARIABLE])
    url = embedded.ensure_server(folder).url("postgres")
    # Databases come and go by the hundred: a killed process loses nothing without it, only a lost machine does.
    administer(url, "ALTER SYSTEM SET fsync = off", "SELECT pg_reload_conf()")
    yield url
    embedded.release(folder)


@pytest.fixture(scope="session")
def template_name(server_url: URL) -> Iterator[str]:
    """A migrated database nobody is connected to."""
    name = f"ledger_eod_test_{os.getpid()}_template"
    administer(server_url, f"CREATE DATABASE {name}")
    engine = database.make_engine(server_url.set(database=name), settings=Settings(_env_file=None))
    migrate(engine)
    engine.dispose()
    yield name
    administer(server_url, f"DROP DATABASE {name} WITH (FORCE)")


@pytest.fixture(autouse=True)
def own_settings(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Settings as they are without any environment variable or ``.env`` file."""
    for name in list(os.environ):
        if name.startswith("LEDGER_"):
            monkeypatch.delenv(name)
    monkeypatch.setitem(Settings.model_config, "env_file", None)
    get_settings.cache_clear()
    yield
    database.dispose_engines()
    get_settings.cache_clear()


@pytest.fixture
def empty_database(server_url: URL, own_settings: None) -> Iterator[Ledger]:
    """A database without any schema."""
    yield from database_of(server_url, "template0")


@pytest.fixture
def ledger(
    server_url: URL, template_name: str, own_settings: None, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Ledger]:
    """A fresh migrated ledger of this test's own, which is also the configured one."""
    for ledger in database_of(server_url, template_name):
        monkeypatch.setenv("LEDGER_DATABASE_URL", ledger.url.render_as_string(hide_password=False))
        get_settings.cache_clear()
        yield ledger
        database.dispose_engines()


@pytest.fixture
def books(ledger: Ledger) -> Books:
    """The books of this test's own ledger."""
    return Books(ledger)


@pytest.fixture
def other_books(server_url: URL, template_name: str, own_settings: None) -> Iterator[Books]:
    """Books of a second ledger, to compare with."""
    for ledger in database_of(server_url, template_name):
        yield Books(ledger)


# Read at Prefect's first import, which the tests of flows and deployments bring about.
os.environ.setdefault("PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL", "CRITICAL")
os.environ.setdefault("PREFECT_SERVER_ANALYTICS_ENABLED", "false")
os.environ.setdefault("DO_NOT_TRACK", "1")


@pytest.fixture(scope="session")
def prefect_api_url() -> Iterator[str]:
    """The API of a Prefect server of this session's own, which is also the configured one.

    Started only when a test asks for it.
    """
    from prefect.settings import PREFECT_API_URL
    from prefect.testing.utilities import prefect_test_harness

    with prefect_test_harness(server_startup_timeout=120):
        yield str(PREFECT_API_URL.value())
