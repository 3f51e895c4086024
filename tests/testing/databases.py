"""Databases that come and go: one clone of a template for each test."""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterator

from sqlalchemy import URL, create_engine, text
from sqlalchemy.pool import NullPool

from ledger_db.server import connections as database
from ledger_db.settings import Settings
from tests.testing.books import Ledger

_numbers = itertools.count(1)


def administer(server_url: URL, *statements: str) -> None:
    engine = create_engine(server_url, isolation_level="AUTOCOMMIT", poolclass=NullPool)
    with engine.connect() as connection:
        for statement in statements:
            connection.execute(text(statement))
    engine.dispose()


def database_of(server_url: URL, template: str) -> Iterator[Ledger]:
    name = f"ledger_eod_test_{os.getpid()}_{next(_numbers)}"
    administer(server_url, f"CREATE DATABASE {name} TEMPLATE {template}")
    url = server_url.set(database=name)
    engine = database.make_engine(url, settings=Settings(_env_file=None))
    try:
        yield Ledger(url, engine)
    finally:
        engine.dispose()
        administer(server_url, f"DROP DATABASE {name} WITH (FORCE)")
