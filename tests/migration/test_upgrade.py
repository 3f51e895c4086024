"""A ledger as an earlier version left it: every migration since runs on it, and every answer stays what it was.

``fixtures/NUMBER.sql`` is a dump by the version whose last migration has that number, ``NUMBER.json`` what that version
answered: for each balance and instant credit, debit, inflight credit and inflight debit, as known now and as known at
each certified run. 0006 was restored once before it was dumped, so its first runs are of another cluster than its last;
it has late and future-dated entries, holds over midnight, a correction, open discrepancies, an interim run, and a close
that is half written.
"""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

from ledger_db.attach.migrate import migrate, schema_state
from ledger_db.close.driver import complete_run
from ledger_db.close.runs import find_run
from ledger_db.history.balance_at import balance_at
from ledger_db.server import embedded
from tests.testing.books import Books, Ledger, instant
from tests.testing.oracle import snapshots_of

FIXTURES = Path(__file__).with_name("fixtures")
VERSIONS = sorted(path.stem for path in FIXTURES.glob("*.sql"))

Answers = dict[str, dict[str, list[str]]]


def upgraded(ledger: Ledger, version: str) -> Books:
    """The fixture of a version in a database of its own, migrated to this one."""
    subprocess.run(
        [
            str(embedded.binaries() / "psql"), "-q", "-v", "ON_ERROR_STOP=1", "-f", str(FIXTURES / f"{version}.sql"),
            "-d", ledger.url.set(drivername="postgresql").render_as_string(hide_password=False),
        ],
        check=True, timeout=60, stdout=subprocess.DEVNULL,
    )  # fmt: skip
    migrate(ledger.engine)
    return Books(ledger)


def expected(version: str) -> dict[str, Any]:
    answers: dict[str, Any] = json.loads((FIXTURES / f"{version}.json").read_text())
    return answers


def answers(books: Books, wanted: Answers, **how: Any) -> Answers:
    """What this version answers to the questions that an earlier one was asked."""
    with books.engine.connect() as connection:
        return {
            balance_id: {
                written: [
                    str(getattr(balance_at(connection, balance_id, instant(written), **how), f"{part}_balance"))
                    for part in ("credit", "debit", "inflight_credit", "inflight_debit")
                ]
                for written in asked
            }
            for balance_id, asked in wanted.items()
        }


def test_there_is_a_fixture() -> None:
    assert "0006" in VERSIONS


@pytest.mark.parametrize("version", VERSIONS)
def test_every_answer_is_as_before(empty_database: Ledger, version: str) -> None:
    then = expected(version)
    books = upgraded(empty_database, version)
    with books.engine.connect() as connection:
        assert schema_state(connection).is_current
    for from_source in (False, True):
        assert answers(books, then["now"], from_source=from_source) == then["now"]


@pytest.mark.parametrize("version", VERSIONS)
def test_snapshots_and_what_was_found_are_kept(empty_database: Ledger, version: str) -> None:
    then = expected(version)
    books = upgraded(empty_database, version)
    with books.engine.connect() as connection:
        for run_id in map(int, then["known_at"]):
            run = find_run(connection, run_id)
            if run.kind == "close":
                written = f"{run.closes_at:%Y-%m-%d}"
                assert {
                    balance_id: [str(amount) for amount in figures]
                    for balance_id, figures in snapshots_of(connection, run).items()
                } == {balance_id: asked[written] for balance_id, asked in then["known_at"][str(run_id)].items()}
    assert books.rows(
        "SELECT cause, found_by::text, closed_correction_id FROM ledger_eod.discrepancies ORDER BY discrepancy_id"
    ) == [
        ("cross_currency", "since-close", None), ("tampered_stored_row", "since-close", 1),
        ("tampered_stored_row", "since-close", None),
    ]  # fmt: skip


@pytest.mark.parametrize("version", VERSIONS)
def test_the_next_call_deals_with_the_open_close(empty_database: Ledger, version: str) -> None:
    """In a copy its cut means nothing: the date is opened again, and proved."""
    then = expected(version)
    books = upgraded(empty_database, version)
    run = books.open_day("2026-01-07")
    assert run.run_id != then["open_run"]
    certified = complete_run(books.engine, run.run_id, batch_size=3).run
    with books.engine.connect() as connection:
        assert find_run(connection, then["open_run"]).status == "abandoned"
        assert certified.certified
    assert answers(books, then["now"]) == then["now"]
