"""JSON shapes: what every field is called, in what order it comes, and how amounts and instants are written.

The golden files were written by the functions that printed this JSON before it had models.
"""

from __future__ import annotations

import os
from collections import Counter
from dataclasses import replace
from datetime import UTC, date, datetime, time, timedelta, timezone
from decimal import Decimal
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from prefect.events.schemas.automations import Automation, EventTrigger, Posture

from deployments import wire
from deployments.console import write_json
from deployments.doctor import Finding
from deployments.orchestrator.automations import Standing
from ledger_db.books.accounts import StoredBalance
from ledger_db.close.runs import Run
from ledger_db.close.totals import RunTotals
from ledger_db.core.amounts import AMOUNT_COLUMNS, Amounts
from ledger_db.correction.corrections import Correction
from ledger_db.correction.recalculation import Result
from ledger_db.correction.reconstructions import Reconstruction
from ledger_db.history.balance_at import BalanceAt
from ledger_db.verification.closed_dates import NO_RUNS, RowsLeftOut, RunsCompared
from ledger_db.verification.discrepancies import CauseTotal, Discrepancy
from ledger_db.verification.driver import VerificationReport
from ledger_db.verification.sweeps import Verification

GOLDEN = Path(__file__).with_name("golden") / "wire"
AN_INSTANT = datetime(2026, 1, 7, tzinfo=UTC)
IN_BERLIN = datetime(2026, 1, 7, 1, 2, 3, 456000, tzinfo=timezone(timedelta(hours=1)))
HUGE = 2**80 * 100
STORED = Amounts(
    Decimal(-HUGE), Decimal("1E+3"), Decimal(HUGE + 1000), Decimal("0.50"), Decimal("2.50"), Decimal("2.00")
)
PROVEN = Amounts(Decimal(115000), Decimal(120000), Decimal(5000), Decimal(0), Decimal(0), Decimal(0))
EVIDENCE = {"since": "2026-01-05", "amounts": {"credit_balance": "50", "é": "0"}, "versions": [1, 2], "share": 0.5}

CLOSE = Run(
    run_id=7, business_date=date(2026, 1, 6), kind="close", status="certified", time_zone="Europe/Berlin",
    cut_off=time(17), opens_at=AN_INSTANT - timedelta(days=1), closes_at=IN_BERLIN, cut="7:7:", system_identifier="1",
    cluster_id=1, base_run_id=6, genesis_run_id=1, max_transaction_key=9, pending_from_run_id=3,
    caught_up=True, opened_at=IN_BERLIN, planned_at=AN_INSTANT, collected_at=AN_INSTANT, certified_at=AN_INSTANT,
    snapshot_count=1234, checksum="abc", refusal=None,
)  # fmt: skip
OPEN = replace(
    CLOSE, run_id=8, kind="interim", status="open", base_run_id=None, caught_up=False, certified_at=None,
    snapshot_count=None, checksum=None, refusal="it does not prove",
)  # fmt: skip
TOTALS = RunTotals(
    currency="USD", balance_count=3, credit_balance=HUGE, debit_balance=HUGE + 5, inflight_credit_balance=2,
    inflight_debit_balance=1, itemised_difference=-5, itemised_inflight_difference=1,
)  # fmt: skip
BALANCE = StoredBalance(
    balance_key=1, balance_id="bln_world_usd", currency="USD", **STORED.as_columns(), indicator="@world", owner=None,
    created_at=datetime(2026, 1, 5, 9, 0, 0, 120000),  # noqa: DTZ001 - as the ledger's own tables have it
)  # fmt: skip
ANSWER = BalanceAt(
    balance_id="bln_wallet", currency="USD", at=IN_BERLIN, known_at=CLOSE, from_source=False, anchor=None,
    credit_balance=HUGE, debit_balance=1, inflight_credit_balance=0, inflight_debit_balance=3, correction_ids=(4, 5),
)  # fmt: skip
ABOUT_A_BALANCE = Discrepancy(
    discrepancy_id=1, cause="tampered_stored_row", action="reconstruct", found_by="from-genesis",
    balance_id="bln_wallet", transaction_id=None, currency="USD", business_date=None,
    stored_balance=STORED.balance, stored_inflight_balance=STORED.inflight_balance, stored=STORED.parts,
    proven=PROVEN.parts, difference="50|0|0|0",
    gross_difference=Decimal("50.00"), evidence=EVIDENCE, first_seen_at=IN_BERLIN, first_verification_id=1,
    last_seen_at=AN_INSTANT, last_verification_id=2, closed_at=None, closed_verification_id=None,
    closed_correction_id=None,
)  # fmt: skip
NO_AMOUNTS: dict[str, Any] = dict.fromkeys(["stored_balance", "stored_inflight_balance", "stored", "proven"])
ABOUT_A_CLOSE = replace(
    ABOUT_A_BALANCE, discrepancy_id=2, cause="row_edited_or_removed", found_by="checksums", balance_id=None,
    transaction_id="txn_1", currency=None, business_date=date(2026, 1, 6), closed_at=AN_INSTANT, evidence={},
    **NO_AMOUNTS,
)  # fmt: skip
VERIFICATION = Verification(
    verification_id=2, scope="from-genesis", status="finished", base_run_id=7, checked_run_id=None, cut="7:7:",
    ledger_id=None, currency=None, balance_ids=None, started_at=IN_BERLIN, collected_at=None, finished_at=AN_INSTANT,
    batch_count=1, failed_batch_count=0, balance_count=3, finding_count=2, opened_count=1, closed_count=0,
    gross_volume=Decimal("1E+5"), unexplained_volume=Decimal("10.50"),
)  # fmt: skip
UNDER_WAY = replace(VERIFICATION, verification_id=3, status="open", finished_at=None, unexplained_volume=Decimal(0))
COMPARED = RunsCompared(
    4, 1234, frozenset({date(2026, 1, 30), date(2026, 1, 31)}), Counter({RowsLeftOut.interim: 2})
)  # fmt: skip
CAUSE = CauseTotal(
    cause="tampered_stored_row", action="reconstruct", currency="USD", discrepancy_count=1, gross_difference=Decimal(50)
)
RECONSTRUCTION = Reconstruction(
    reconstruction_id=5, mode="apply", selection="given", reason="the bank's statement", proposed_by="Ada",
    flow_run_id=None, status="proposed", base_run_id=7, figures_hash="0123456789abcdef",
    approval_reasons=["50 USD in all, the limit is 0 (minor units)"], approval_id=1, approved_by="Grace",
    applying_at=None, started_at=AN_INSTANT, ended_at=None,
)  # fmt: skip
UNSEALED = replace(RECONSTRUCTION, figures_hash=None, approval_reasons=None, approved_by=None, proposed_by="")
RESULT = Result(
    balance_key=1, balance_id="bln_wallet", currency="USD", version=3, verdict="correct", cause="tampered_stored_row",
    remark="", previous=STORED, recalculated=PROVEN, gross_difference=Decimal(50), executed_at=AN_INSTANT,
    evidence=EVIDENCE,
)  # fmt: skip
CORRECTION = Correction(
    correction_id=9, reconstruction_id=5, balance_id="bln_wallet", currency="USD", previous_version=3, previous=STORED,
    corrected_version=4, corrected=PROVEN, cause="tampered_stored_row", evidence=EVIDENCE,
    reason="the bank's statement", proposed_by="Ada", approved_by="Grace", approval_id=1,
    figures_hash="0123456789abcdef", base_run_id=7, flow_run_id=None, drifted_since=None, corrected_at=IN_BERLIN,
)  # fmt: skip
INSTALLED = Standing(
    "ledger-eod: run is late", "When …", "installed",
    installed=[
        Automation(
            id=UUID(int=7), name="ledger-eod: run is late", trigger=EventTrigger(posture=Posture.Reactive), actions=[]
        )
    ],
)  # fmt: skip
WAITING = Standing("ledger-eod: run failed", "When …", "waiting", waiting_for="notify/log")

SHAPES: dict[str, list[wire.Shape]] = {
    "balance": [wire.StoredBalance.of(BALANCE)],
    "balance-at": [
        wire.BalanceAt.of(ANSWER),
        wire.BalanceAt.of(replace(ANSWER, known_at=None, correction_ids=(), from_source=True)),
    ],
    "run": [wire.Run.of(CLOSE, [TOTALS]), wire.Run.of(OPEN, [])],
    "discrepancy": [wire.Discrepancy.of(ABOUT_A_BALANCE), wire.Discrepancy.of(ABOUT_A_CLOSE)],
    "verification": [
        wire.Verification.of(VerificationReport(VERIFICATION, [ABOUT_A_BALANCE], [CAUSE], NO_RUNS)),
        wire.Verification.of(VerificationReport(UNDER_WAY, [], [], NO_RUNS)),
        wire.Verification.of(VerificationReport(replace(UNDER_WAY, scope="checksums"), [], [], COMPARED)),
    ],
    "reconstruction": [wire.Reconstruction.of(RECONSTRUCTION, [RESULT]), wire.Reconstruction.of(UNSEALED, [])],
    "correction": [wire.Correction.of(CORRECTION)],
    "automation": [wire.Automation.of(INSTALLED), wire.Automation.of(WAITING)],
    "finding": [wire.Finding.of(Finding("ledger", "wrong", "cannot be reached"))],
}


@pytest.mark.parametrize("shape", SHAPES)
def test_json_is_the_golden_one(shape: str, capsys: pytest.CaptureFixture[str]) -> None:
    write_json(SHAPES[shape])
    written = capsys.readouterr().out
    golden = GOLDEN / f"{shape}.json"
    if os.environ.get("EOD_WRITE_GOLDEN"):
        golden.write_text(written)
    assert written == golden.read_text(), "EOD_WRITE_GOLDEN=1 writes it again"


def test_every_shape_has_a_golden_file() -> None:
    assert {path.stem for path in GOLDEN.iterdir()} == set(SHAPES)


def _models() -> list[type[wire.Shape]]:
    return [
        model
        for name, model in vars(wire).items()
        if isinstance(model, type) and issubclass(model, wire.Shape) and not name.startswith("_")
    ]


@pytest.mark.parametrize("model", _models(), ids=lambda model: model.__name__)
def test_every_field_is_documented(model: type[wire.Shape]) -> None:
    assert model.__doc__
    for name, found in model.model_json_schema(mode="serialization").get("properties", {}).items():
        assert found.get("description"), name


def test_schema_has_amounts_as_strings_and_instants_as_date_times() -> None:
    properties = wire.BalanceAt.model_json_schema(mode="serialization")["properties"]
    assert {properties[column]["type"] for column in AMOUNT_COLUMNS} == {"string"}
    assert properties["timestamp"]["format"] == "date-time"
