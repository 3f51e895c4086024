"""Books that the commands work on."""

from __future__ import annotations

import pytest

from tests.deployments.cli.commands import JANUARY
from tests.testing.books import Books


@pytest.fixture
def january(books: Books) -> Books:
    """Two days, closed in order."""
    books.post(JANUARY)
    books.close_day("2026-01-05")
    books.close_day("2026-01-06")
    return books
