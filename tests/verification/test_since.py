"""Generated histories: what a base's snapshots do not hold is what the model says, verified and recalculated."""

from __future__ import annotations

from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import URL, Connection, text

from ledger_db.close.runs import Run
from ledger_db.core.amounts import Parts
from ledger_db.correction.recalculation import recalculate
from ledger_db.errors import OutOfOrder
from ledger_db.settings import get_settings
from ledger_db.verification.sweeps import Tally, base_of, collect_postings, end_verification, open_verification
from tests.close.test_counting import BALANCES, History, Night, nights
from tests.testing.books import Books
from tests.testing.databases import database_of
from tests.testing.histories import START
from tests.testing.ledger_model import Effects, Outcome, Table, add
from tests.testing.oracle import NOTHING, Figures


def effects_of(table: Table) -> Effects:
    """What all rows do."""
    return add(
        effect
        for row in table
        for effects in (row.own_effects(), row.release_effects() if table.hold_of(row) else {})
        for effect in effects.items()
    )


def since(base: Outcome, table: Table) -> Effects:
    """What is not in the base's snapshots: rows that no close up to it counted, and releases that wait."""
    counted = base.counted_so_far()
    uncounted = [row for row in table if row.key not in counted]
    waiting = [row for row in table if row.key in base.waiting]
    return add(
        effect
        for effects in (
            *(row.own_effects() for row in uncounted),
            *(row.release_effects() for row in (*uncounted, *waiting) if table.hold_of(row)),
        )
        for effect in effects.items()
    )


def figures(parts: Parts) -> Figures:
    return Figures(*map(int, parts))


def summed(connection: Connection, scope: Any) -> tuple[Run | None, Effects, Effects]:
    """The base of a verification, and per balance what its snapshots do not hold and what they do hold."""
    verification = open_verification(connection, scope=scope)
    collect_postings(connection, verification.verification_id)
    rows = connection.execute(
        text(
            "SELECT balance_id, verification_sums.* FROM ledger_eod.verification_sums "
            "JOIN (SELECT balance_key, balance_id FROM ledger_eod.captured_balances UNION "
            "SELECT id, balance_id FROM blnk.balances) AS named USING (balance_key) WHERE verification_id = :id"
        ),
        {"id": verification.verification_id},
    ).all()
    base = base_of(connection, verification)
    end_verification(connection, verification.verification_id, Tally(), closed_count=0)
    sums = {row.balance_id: figures(Parts.of_row(row)) for row in rows}
    return base, sums, {row.balance_id: figures(Parts.of_row(row, "based_")) for row in rows}


def check_since(history: History) -> None:
    verify_since(history)
    history.arrive()


def verify_since(history: History) -> None:
    with history.books.engine.begin() as connection:
        table = Table.read(connection)
        names = [f"bln_{name}" for name in BALANCES]
        everything = effects_of(table)
        for scope in ("since-close", "from-genesis"):
            base, found, based = summed(connection, scope)
            assert base is not None
            expected = since(history.model.outcomes[base.run_id], table)
            for name in names:
                whole, part = everything.get(name, NOTHING), expected.get(name, NOTHING)
                assert found.get(name, NOTHING) == part, (scope, name)
                rest = Figures(*(a - b for a, b in zip(whole, part, strict=True)))
                assert based.get(name, NOTHING) == (rest if scope == "from-genesis" else NOTHING), (scope, name)
                suspect = recalculate(connection, name, base).suspect
                assert (figures(suspect.since), figures(suspect.proven)) == (part, whole), name


@pytest.fixture
def small_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LEDGER_PIECE_SIZE", "3")
    get_settings.cache_clear()


@given(written=st.lists(nights, min_size=2, max_size=4))
@settings(max_examples=10, deadline=None, database=None, suppress_health_check=list(HealthCheck), derandomize=True)
def test_what_a_base_does_not_hold_is_what_the_model_says(
    small_pieces: None, server_url: URL, template_name: str, written: list[Night]
) -> None:
    with contextmanager(database_of)(server_url, template_name) as ledger:
        history = History(Books(ledger))
        for name, currency in BALANCES.items():
            history.books.open(name, currency)
        day = START.date()
        try:
            for night in written:
                history.in_progress = (day, night.calendar)
                history.play(night.events)
                for later in night.rounds:
                    history.prepare()
                    history.play(later)
                if history.runs:
                    check_since(history)
                try:
                    history.close(day, night.calendar, night.meanwhile, stops=night.stops)
                except OutOfOrder:  # the new calendar's date ends before the last close did
                    continue
                day += timedelta(days=1)
                check_since(history)
        finally:
            history.finish_open("roll back")
