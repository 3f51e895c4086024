"""Every cause at once, planted among ten thousand healthy balances: each scope finds exactly what it is to see."""

from __future__ import annotations

import os
import re
from collections import Counter
from datetime import date
from typing import Any

import pytest

from ledger_db.books.generator import GeneratorSpec, analyze, generate
from ledger_db.verification.causes import Cause
from ledger_db.verification.sweeps import Scope
from tests.testing import PROJECT
from tests.testing.books import Books, unguarded
from tests.testing.verifications import verify

#: How many balances have nothing wrong with them but what is planted on two of them.
HEALTHY = int(os.environ.get("EOD_HEALTHY", "10000"))

DOCUMENTED = PROJECT / "docs" / "verification.md"


@pytest.fixture
def planted(books: Books) -> dict[Scope, Counter[tuple[str, str, str]]]:
    """Two generated days and their closes, everything wrong that there is; what each scope is to find of it."""
    books.execute("ALTER TABLE blnk.transactions ADD COLUMN rate double precision DEFAULT 1")  # an old installation
    books.execute("ALTER TABLE blnk.transactions DROP CONSTRAINT uq_transactions_reference")
    spec = GeneratorSpec(
        first_date=date(2026, 1, 28), balances=HEALTHY, transactions=2 * HEALTHY, days=2, currencies=("USD", "EUR")
    )
    with books.engine.begin() as connection:
        generate(connection, spec)
    analyze(books.engine)
    books.post("""
        recorded          source   destination  amount     status    reference  parent
        2026-01-28 09:00  gone     went         3.00 USD   APPLIED   deleted    -
        2026-01-28 09:00  early    later        3.00 USD   APPLIED   moved      -
        2026-01-28 09:00  kept     altered      3.00 USD   APPLIED   frozen     -
        2026-01-28 09:00  kept     newest       3.00 USD   APPLIED   frozen2    -
        2026-01-28 09:00  recast   vanished     3.00 USD   APPLIED   kept1      -
        2026-01-28 09:00  recast   remade       3.00 USD   APPLIED   kept2      -
        2026-01-29 09:00  lost     found        3.00 USD   APPLIED   missing    -
        2026-01-29 09:00  today    tomorrow     3.00 USD   APPLIED   postponed  -
        2026-01-29 09:00  wallet   shop         9.00 USD   INFLIGHT  hold       -
        2026-01-29 09:01  wallet   shop         12.00 USD  APPLIED   whole      hold
        2026-01-29 09:00  asker    asked        7.00 USD   REJECTED  refused    -
        2026-01-29 09:01  asker    asked        7.00 USD   APPLIED   commit     refused
        2026-01-29 09:00  giver    taker        7.00 USD   INFLIGHT  small      -
        2026-01-29 09:01  giver    other        7.00 USD   APPLIED   astray     small
        2026-01-29 09:02  @world   purse        1.00 EUR   APPLIED   euros      -
    """)
    crossing, converted = plant_rows(books)
    for day in ("2026-01-28", "2026-01-29"):
        books.close_day(day, batch_size=5_000)
    books.post("""
        recorded          source   destination  amount     status    reference  parent
        2026-01-30 09:00  payer    payee        7.00 USD   INFLIGHT  stopped    -
        2026-01-30 09:01  payer    payee        9.00 USD   APPLIED   beyond     stopped
        2026-01-30 09:00  queuer   queued       7.00 USD   QUEUED    queue      -
        2026-01-30 09:01  queuer   queued       7.00 USD   INFLIGHT  queue_q    queue
        2026-01-30 09:02  queuer   queued       7.00 USD   APPLIED   through    queue
    """)
    books.insert(
        source=books.open("sooner"), destination=books.open("awaited"), currency="USD", created_at="2026-01-30 09:00",
        precise_amount=700, status="QUEUED", reference="pending", meta_data='{"inflight": true}',
    )  # fmt: skip
    books.post("""
        recorded          source   destination  amount     status    reference  parent
        2026-01-30 09:01  sooner   awaited      7.00 USD   APPLIED   ahead      pending
    """)
    first, second = (
        name for (name,) in books.rows("SELECT balance_id FROM blnk.balances WHERE id IN (7, 8) ORDER BY id")
    )
    books.insert(  # of no amount, so that it is about no balance
        id=-5, source=books.open("sooner"), destination=books.open("awaited"), currency="USD", precise_amount=0,
        created_at="2026-01-29 10:00", recorded_xid=None, reference="unseen",
    )  # fmt: skip
    damage(books, first, second)
    both = [
        ("tampered_stored_row", "correct", first),
        ("balance_not_credit_minus_debit", "correct", second),
        ("negative_inflight", "investigate", "bln_other"),
        ("wrong_scale", "correct", "bln_major"),
        ("wrong_scale", "declare_unprovable", "bln_fraction"),
        ("unexplained", "investigate", "bln_lost"),
        ("currency_changed", "investigate", "bln_recast"),
        ("balance_removed", "investigate", "bln_vanished"),
        ("balance_replaced", "investigate", "bln_remade"),
    ]
    both += [("legacy_rate", "declare_unprovable", f"bln_{name}") for name in ("sold", "bought")]
    both += [("early_commit", "wait", subject) for subject in ("txn_ahead", "bln_awaited")]
    both += [
        (cause, "investigate", subject)
        for cause, subjects in {
            "over_commit": "txn_hold bln_wallet bln_shop txn_stopped bln_payer bln_payee",
            "orphan_commit": "txn_commit bln_asked txn_through bln_queued",
            "duplicate_reference": "txn_two bln_twin bln_twined",
            "cross_currency": f"{crossing} {converted} bln_abroad bln_purse",
            "row_edited_or_removed": "bln_lost bln_newest",
        }.items()
        for subject in subjects.split()
    ]
    raw = [("row_edited_or_removed", "investigate", f"bln_{name}") for name in ("gone", "went", "found")]
    raw += [("never_counted", "investigate", "txn_unseen")]
    closed_days = {
        "2026-01-28": ["raw rows", "raw rows", "bln_gone", "bln_went", "bln_early", "bln_later", "bln_altered"],
        "2026-01-29": ["raw rows", "raw rows", "bln_lost", "bln_found", "bln_today", "bln_tomorrow", "bln_newest"],
    }  # fmt: skip
    return {
        "since-close": Counter(both),
        "from-genesis": Counter(both + raw),
        "checksums": Counter(
            ("row_edited_or_removed", "investigate", f"{subject} on {day}")
            for day, subjects in closed_days.items()
            for subject in subjects
        ),
    }


def plant_rows(books: Books) -> tuple[str, str]:
    """Rows that no application should write; returns the two that cross currencies, applied and not applied."""

    def row(source: str, destination: str, **columns: Any) -> str:
        return books.insert(
            source=books.open(source), destination=books.open(destination), currency="USD",
            created_at="2026-01-29 10:00", **columns,
        )  # fmt: skip

    row("twin", "twined", precise_amount=40, reference="invoice", transaction_id="txn_one")
    row("twin", "twined", precise_amount=40, reference="invoice", transaction_id="txn_two", stored_too=False)
    row("minor", "major", amount="1.50")
    books.execute("UPDATE blnk.balances SET credit_balance = 1.5, balance = 1.5 WHERE balance_id = 'bln_major'")
    row("whole", "fraction", amount="1.005", stored_too=False)
    books.execute("UPDATE blnk.balances SET credit_balance = 100, balance = 100 WHERE balance_id = 'bln_fraction'")
    row("sold", "bought", precise_amount=1001, rate=0.5, stored_too=False)
    books.execute("UPDATE blnk.balances SET debit_balance = 1001, balance = -1001 WHERE balance_id = 'bln_sold'")
    books.execute("UPDATE blnk.balances SET credit_balance = 501, balance = 501 WHERE balance_id = 'bln_bought'")
    return row("home", "purse", precise_amount=100), row("abroad", "purse", precise_amount=70, stored_too=False)


def damage(books: Books, first: str, second: str) -> None:
    """What was done to stored rows, raw rows and snapshots after the closes."""
    for changes, balance_id in (
        ("credit_balance = credit_balance + 5, balance = balance + 5", first),
        ("balance = balance + 5", second),
        ("debit_balance = debit_balance + 5, balance = balance - 5", "bln_lost"),
        ("inflight_credit_balance = -700, inflight_balance = -700", "bln_asked"),
        ("inflight_credit_balance = -700, inflight_balance = -700", "bln_awaited"),
        ("inflight_credit_balance = 0, inflight_balance = 0", "bln_queued"),
        ("inflight_credit_balance = 0, inflight_balance = 0", "bln_payee"),
    ):
        assert books.execute(f"UPDATE blnk.balances SET {changes} WHERE balance_id = :id", id=balance_id) == 1
    for side in ("source", "destination"):
        books.execute(f"ALTER TABLE blnk.transactions DROP CONSTRAINT fk_transactions_{side}")
    for change in (
        "UPDATE blnk.balances SET currency = 'EUR' WHERE balance_id = 'bln_recast'",
        "DELETE FROM blnk.balances WHERE balance_id = 'bln_vanished'",
        "UPDATE blnk.balances SET id = id + 1000000 WHERE balance_id = 'bln_remade'",
    ):
        unguarded(books, "blnk.balances", change)
    for reference in ("deleted", "missing"):
        unguarded(books, "blnk.transactions", f"DELETE FROM blnk.transactions WHERE reference = '{reference}'")
    for reference, moved_to in (("moved", "2026-01-29 09:00"), ("postponed", "2026-05-05")):
        unguarded(
            books, "blnk.transactions",
            f"UPDATE blnk.transactions SET effective_date = '{moved_to}' WHERE reference = '{reference}'",
        )  # fmt: skip
    for name, day in (("altered", "2026-01-28"), ("newest", "2026-01-29")):
        unguarded(
            books, "ledger_eod.balance_snapshots",
            "UPDATE ledger_eod.balance_snapshots SET credit_balance = credit_balance + 3 "
            f"WHERE business_date = '{day}' AND kind = 'close' "
            f"AND balance_key = (SELECT id FROM blnk.balances WHERE balance_id = 'bln_{name}')",
        )  # fmt: skip


def test_each_scope_finds_exactly_what_was_planted(
    books: Books, planted: dict[Scope, Counter[tuple[str, str, str]]]
) -> None:
    ((balances,),) = books.rows("SELECT count(*) FROM blnk.balances")
    assert balances > HEALTHY
    for scope, expected in planted.items():
        sweep = verify(books, scope, batch_size=500)
        assert Counter((each.cause, each.action, each.subject) for each in sweep.found) == expected, scope
        assert sweep.verification.balance_count == (0 if scope == "checksums" else balances + 1)  # one is removed
    documented = re.findall(r"^\| `(\w+)` \|", DOCUMENTED.read_text().split("## Causes")[1], re.MULTILINE)
    assert {cause for expected in planted.values() for cause, _, _ in expected} == set(documented)
    assert {str(cause) for cause in Cause} == set(documented)
