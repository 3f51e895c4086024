"""A Prefect server for the tests that run flows: started once a session, and only when a test asks for it."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

# Read at Prefect's first import, which the tests of this folder bring about.
os.environ.setdefault("PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL", "CRITICAL")
os.environ.setdefault("PREFECT_SERVER_ANALYTICS_ENABLED", "false")
os.environ.setdefault("DO_NOT_TRACK", "1")


@pytest.fixture(scope="session")
def prefect_api_url() -> Iterator[str]:
    """The API of a Prefect server of this session's own, which is also the configured one."""
    from prefect.settings import PREFECT_API_URL
    from prefect.testing.utilities import prefect_test_harness

    with prefect_test_harness(server_startup_timeout=120):
        yield str(PREFECT_API_URL.value())
