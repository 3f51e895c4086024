"""A ledger that a logical subscription fills: nothing is counted there, as its rows come under the publisher's ids."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

import pytest

from deployments.doctor import examine
from ledger_db.attach.migrate import migrate
from ledger_db.close.new_chain import open_new_chain
from ledger_db.close.preparing import prepare_close
from ledger_db.core.calendar import BusinessCalendar
from ledger_db.errors import ForeignRecords
from ledger_db.settings import get_settings
from tests.testing.books import Books, instant
from tests.testing.clusters import Cluster, ledger_on, remove
from tests.testing.databases import administer
from tests.testing.oracle import assert_proved, open_interim_at

SUBSCRIBED = (
    "blnk.transactions is filled by a subscription: its rows carry the publisher's transaction ids, and no cut can "
    "tell when they came. Close on the publisher, or on a streaming standby's primary"
)
ARRIVED = "SELECT count(*) FROM blnk.transactions WHERE reference = 'replicated'"


@pytest.fixture(scope="module")
def publisher_and_subscriber() -> Iterator[tuple[Books, Books]]:
    """Two databases of a cluster: one day closed in both, then each new transaction of the first comes to the other."""
    folder = Path(mkdtemp(prefix="eod-clusters-"))
    folder.chmod(0o755)
    cluster = Cluster.make(18, folder / "logical")
    with (cluster.data / "postgresql.conf").open("a") as configuration:
        configuration.write("wal_level = logical\n")
    with ExitStack() as stack:
        stack.callback(remove, folder)
        url = stack.enter_context(cluster.running())
        publisher = Books(stack.enter_context(ledger_on(url)))
        migrate(publisher.engine)
        publisher.post("""
            recorded          source  destination  amount
            2026-01-29 09:00  @world  wallet       10.00 USD
        """)
        publisher.close_day("2026-01-29")
        publisher.engine.dispose()
        administer(url.set(database="postgres"), f"CREATE DATABASE subscriber TEMPLATE {url.database}")
        subscriber = Books(stack.enter_context(ledger_on(url.set(database="subscriber"))))
        subscriber.close_day("2026-01-30")
        administer(
            url,
            "CREATE PUBLICATION payments FOR TABLE blnk.transactions",
            "SELECT pg_create_logical_replication_slot('payments', 'pgoutput')",
        )
        administer(
            url.set(database="subscriber"),
            f"CREATE SUBSCRIPTION payments CONNECTION 'host={cluster.folder} user=postgres dbname={url.database}' "
            "PUBLICATION payments WITH (create_slot = false, copy_data = false)",
        )
        publisher.post("""
            recorded          effective         source  destination  amount    reference
            2026-01-31 09:00  2026-01-29 10:00  @world  wallet       1.00 USD  replicated
        """)
        wait_for_arrival(subscriber)
        yield publisher, subscriber
        administer(url.set(database="subscriber"), "DROP SUBSCRIPTION payments")


def wait_for_arrival(subscriber: Books) -> None:
    deadline = time.monotonic() + 30
    while subscriber.rows(ARRIVED) != [(1,)]:
        assert time.monotonic() < deadline
        time.sleep(0.05)


def open_close(books: Books) -> object:
    return books.open_day("2026-01-31")


def open_interim(books: Books) -> object:
    return open_interim_at(books, "2026-01-31 12:00")


def prepare(books: Books) -> object:
    now = datetime(2026, 1, 31, 12, tzinfo=UTC)
    return prepare_close(books.engine, calendar=BusinessCalendar(), now=now, writers_seconds=0)


def propose_new_chain(books: Books) -> object:
    with books.engine.begin() as connection:
        return open_new_chain(
            connection, reason="to get past it", proposed_by="ada", calendar=BusinessCalendar(),
            now=instant("2026-02-01 00:05"),
        )  # fmt: skip


@pytest.mark.parametrize("begin", [open_close, open_interim, prepare, propose_new_chain])
def test_no_run_begins_on_a_subscriber(
    publisher_and_subscriber: tuple[Books, Books], begin: Callable[[Books], Any]
) -> None:
    _, subscriber = publisher_and_subscriber
    before = subscriber.rows("SELECT run_id, status::text FROM ledger_eod.runs ORDER BY 1")
    with pytest.raises(ForeignRecords) as refused:
        begin(subscriber)
    assert str(refused.value) == SUBSCRIBED
    assert subscriber.rows("SELECT run_id, status::text FROM ledger_eod.runs ORDER BY 1") == before


def test_doctor_names_the_subscription_as_wrong(
    publisher_and_subscriber: tuple[Books, Books], monkeypatch: pytest.MonkeyPatch
) -> None:
    publisher, subscriber = publisher_and_subscriber
    said = {}
    for books in (publisher, subscriber):
        monkeypatch.setenv("LEDGER_DATABASE_URL", books.ledger.url.render_as_string(hide_password=False))
        get_settings.cache_clear()
        (found,) = [each for each in examine(get_settings()) if each.subject == "transactions"]
        said[books] = (found.status, found.detail)
    assert said == {
        publisher: ("ok", "recorded here, under the keys that closes counted"),
        subscriber: ("wrong", SUBSCRIBED),
    }


def test_the_advice_can_be_followed_on_the_publisher(publisher_and_subscriber: tuple[Books, Books]) -> None:
    publisher, _ = publisher_and_subscriber
    assert_proved(publisher, publisher.close_day("2026-01-30"))
    assert publisher.balance("wallet", at="2026-01-30") == "11.00"
