"""JSON shapes: what a program reads of the ledger, with the reference ledger's field names.

Amounts are strings of minor units, since a balance can be larger than what a JSON reader's number holds. Instants are
UTC with ``Z``. The order of the fields is part of a shape. Amount fields are made from the lists in
``ledger_db.core.amounts``.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self, TypeVar

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, create_model

from ledger_db.core.amounts import AMOUNT_COLUMNS, PART_COLUMNS, plain

if TYPE_CHECKING:
    from deployments import doctor
    from deployments.orchestrator import automations
    from ledger_db.books import accounts
    from ledger_db.close import runs
    from ledger_db.close import totals as run_totals
    from ledger_db.correction import corrections, recalculation, reconstructions
    from ledger_db.history import balance_at
    from ledger_db.verification import closed_dates, driver
    from ledger_db.verification import discrepancies as kept


def _as_text(amount: object) -> object:
    """A number as text, without exponent or separators; digits that were stored stay."""
    if isinstance(amount, Decimal):
        return f"{amount:f}"
    return str(amount) if isinstance(amount, int) else amount


def _as_plain_text(amount: object) -> object:
    """A number as text, without exponent or trailing zeros."""
    return plain(amount) if isinstance(amount, Decimal | int) else amount


def _in_utc(instant: datetime) -> datetime:
    """The instant in UTC; one without offset, from the ledger's own tables, is UTC."""
    return instant.replace(tzinfo=UTC) if instant.tzinfo is None else instant.astimezone(UTC)


Amount = Annotated[str, BeforeValidator(_as_text)]
PlainAmount = Annotated[str, BeforeValidator(_as_plain_text)]
Instant = Annotated[datetime, AfterValidator(_in_utc)]


class Shape(BaseModel):
    """What all shapes have in common."""

    model_config = ConfigDict(frozen=True, extra="forbid")


_Shape = TypeVar("_Shape", bound=Shape)


def _taken_from(shape: type[_Shape], source: object, **given: Any) -> _Shape:
    """A shape whose fields are those given, and for the rest the source's attributes of the same names."""
    rest = shape.model_fields.keys() - given.keys()
    return shape(**{name: getattr(source, name) for name in rest}, **given)


def _then_amounts(
    head: type[Shape], columns: Iterable[str], meaning: str, *, prefix: str = "", of: Any = Amount
) -> type[Shape]:
    """A shape's fields, followed by one for each of these amounts. A class made from it goes on with its own fields."""
    fields: dict[str, Any] = {
        f"{prefix}{column}": (of, Field(description=f"{column.replace('_', ' ')} {meaning}, minor units"))
        for column in columns
    }
    return create_model(head.__name__.removeprefix("_"), __base__=head, **fields)


class _BalanceName(Shape):
    balance_id: str = Field(description="the balance's id")
    currency: str = Field(description="its currency")


# mypy does not follow a base class that is made from a list: hence "type: ignore" below


class StoredBalance(_then_amounts(_BalanceName, AMOUNT_COLUMNS, "as stored")):  # type: ignore[misc]
    """A balance row as it is stored, right or wrong."""

    indicator: str | None = Field(description="the name of an internal balance, such as @World; null: it has none")
    owner: str | None = Field(description="the identity that owns it; null: none")
    created_at: datetime = Field(
        description="when it was created; without offset, since the application writes its host's local time"
    )

    @classmethod
    def of(cls, balance: accounts.StoredBalance) -> Self:
        """The shape of a stored balance row."""
        return _taken_from(cls, balance)


class KnownAt(Shape):
    """The run whose knowledge an answer has."""

    run_id: int = Field(description="the run's id")
    business_date: date = Field(description="its business date")


class BalanceAt(_then_amounts(_BalanceName, AMOUNT_COLUMNS, "at the instant")):  # type: ignore[misc]
    """A balance at an instant: every posting that is effective earlier counts."""

    timestamp: Instant = Field(description="the instant")
    known_at: KnownAt | None = Field(description="as known at this run; null: as known now")
    from_source: bool = Field(description="whether it was summed from the first posting")
    correction_ids: list[int] = Field(description="corrections that ended a drift of the stored row at the instant")

    @classmethod
    def of(cls, answer: balance_at.BalanceAt) -> Self:
        """The shape of a balance at an instant."""
        known = None if answer.known_at is None else _taken_from(KnownAt, answer.known_at)
        return _taken_from(cls, answer, timestamp=answer.at, known_at=known)


class _TotalsHead(Shape):
    currency: str = Field(description="the currency of these totals")
    balance_count: int = Field(description="how many balances have a snapshot in the run")
    difference: Amount = Field(description="credits minus debits, minor units; 0 when the books balance")


class RunTotals(_then_amounts(_TotalsHead, PART_COLUMNS, "of all its snapshots")):  # type: ignore[misc]
    """The sum of a run's snapshots in one currency."""

    itemised_difference: Amount = Field(description="the part of the difference that listed transactions explain")
    itemised_inflight_difference: Amount = Field(description="the same of the inflight amounts")

    @classmethod
    def of(cls, total: run_totals.RunTotals) -> Self:
        """The shape of a run's totals in one currency."""
        return _taken_from(cls, total)


class Run(Shape):
    """A run and the totals it certified."""

    run_id: int = Field(description="the run's id")
    business_date: date = Field(description="its business date")
    kind: str = Field(description="close: the official end of day; interim: as of some instant of the day")
    status: str = Field(description="open, certified or abandoned")
    opens_at: Instant = Field(description="the first instant of the business date")
    closes_at: Instant = Field(description="the first instant that does not belong to the business date any more")
    opened_at: Instant = Field(description="when the run was opened and took its cut")
    certified_at: Instant | None = Field(description="when its figures were proved and frozen; null: not yet")
    caught_up: bool = Field(description="whether it was opened after a later date had ended")
    base_run_id: int | None = Field(description="the close on whose snapshots it builds; null: it is the first")
    snapshot_count: int | None = Field(description="how many snapshots it has; null: it is not certified")
    checksum: str | None = Field(description="checksum of its snapshots; null: it is not certified")
    refusal: str | None = Field(description="why it was not certified at the last try; null: no try failed")
    totals: list[RunTotals] = Field(description="the sums of its snapshots, one for each currency")

    @classmethod
    def of(cls, run: runs.Run, totals: list[run_totals.RunTotals]) -> Self:
        """The shape of a run with its totals."""
        return _taken_from(cls, run, totals=[RunTotals.of(total) for total in totals])


class StoredAmounts(_then_amounts(Shape, AMOUNT_COLUMNS, "as stored", of=PlainAmount | None)):  # type: ignore[misc]
    """The amounts of a stored balance row; null where a discrepancy is not about a balance."""


class ProvenAmounts(_then_amounts(Shape, PART_COLUMNS, "as proven", of=PlainAmount | None)):  # type: ignore[misc]
    """The amounts that postings prove; null where a discrepancy is not about a balance."""


class Discrepancy(Shape):
    """A difference that verification found, with its cause and its evidence."""

    discrepancy_id: int = Field(description="the discrepancy's id")
    cause: str = Field(description="what the difference comes from")
    action: str = Field(description="what to do about it")
    found_by: str = Field(description="the scope of the verification that found it first")
    balance_id: str | None = Field(description="the balance it is about; null: it is not about a balance")
    transaction_id: str | None = Field(description="the transaction it is about; null: it is not about one")
    business_date: date | None = Field(description="the closed date it is about; null: it is not about one")
    currency: str | None = Field(description="the currency of its amounts; null: several")
    stored: StoredAmounts = Field(description="the amounts of the stored row")
    proven: ProvenAmounts = Field(description="the amounts that postings prove")
    gross_difference: PlainAmount = Field(description="the sum of the differences regardless of sign, minor units")
    evidence: dict[str, Any] = Field(description="the facts from which the cause follows, by name")
    first_seen_at: Instant = Field(description="when it was found first")
    last_seen_at: Instant = Field(description="when it was seen last")
    closed_at: Instant | None = Field(description="when it was found to be gone; null: it is open")
    closed_correction_id: int | None = Field(description="the correction that closed it; null: a verification, or open")

    @classmethod
    def of(cls, found: kept.Discrepancy) -> Self:
        """The shape of a discrepancy."""
        stored: dict[str, Any] = dict.fromkeys(AMOUNT_COLUMNS)
        stored |= {"balance": found.stored_balance, "inflight_balance": found.stored_inflight_balance}
        stored |= {} if found.stored is None else found.stored.as_columns()
        proven = dict.fromkeys(PART_COLUMNS) if found.proven is None else found.proven.as_columns()
        return _taken_from(cls, found, stored=StoredAmounts(**stored), proven=ProvenAmounts(**proven))


class CauseTotal(Shape):
    """The open discrepancies of one cause in one currency."""

    cause: str = Field(description="the cause")
    action: str = Field(description="what to do about it")
    currency: str = Field(description="the currency; empty: several")
    discrepancy_count: int = Field(description="how many discrepancies")
    gross_difference: PlainAmount = Field(description="the sum of their gross differences, minor units")

    @classmethod
    def of(cls, total: kept.CauseTotal) -> Self:
        """The shape of one cause's total."""
        return _taken_from(cls, total)


class RunsCompared(Shape):
    """The certified runs that a verification of the checksums compared."""

    run_count: int = Field(description="how many, closes and interim ones")
    first_date: date | None = Field(description="the first of their business dates; null: there is none")
    last_date: date | None = Field(description="the last of them")
    date_count: int = Field(description="how many business dates they are of")
    transaction_count: int = Field(description="how many raw rows were compared")
    rows_left_out: dict[str, int] = Field(description="of how many of the runs the raw rows were not compared, and why")

    @classmethod
    def of(cls, compared: closed_dates.RunsCompared) -> Self:
        """The shape of what was compared."""
        return _taken_from(
            cls,
            compared,
            first_date=min(compared.dates, default=None),
            last_date=max(compared.dates, default=None),
            date_count=len(compared.dates),
            rows_left_out={str(why): count for why, count in compared.rows_left_out.items()},
        )


class Verification(Shape):
    """A verification, its totals and the discrepancies that it saw."""

    verification_id: int = Field(description="the verification's id")
    scope: str = Field(description="since-close, from-genesis or checksums")
    ledger_id: str | None = Field(description="only balances of this ledger; null: of all")
    currency: str | None = Field(description="only balances of this currency; null: of all")
    balance_ids: list[str] | None = Field(description="only these balances; null: all")
    status: str = Field(description="open, finished or abandoned")
    started_at: Instant = Field(description="when it was started")
    finished_at: Instant | None = Field(description="when it ended; null: it has not")
    balance_count: int = Field(description="how many balances were compared")
    finding_count: int = Field(description="how many differences were found")
    opened_count: int = Field(description="how many of them are new discrepancies")
    closed_count: int = Field(description="how many open discrepancies are gone")
    gross_volume: PlainAmount = Field(description="the sum of all compared amounts regardless of sign, minor units")
    unexplained_volume: PlainAmount = Field(description="the part of it that has no known cause, minor units")
    explained_percent: str = Field(description="the share that is proven or has a cause, percent, rounded down")
    compared: RunsCompared | None = Field(description="of scope checksums: what was compared; null: another scope")
    totals: list[CauseTotal] = Field(description="its discrepancies by cause and currency, largest difference first")
    discrepancies: list[Discrepancy] = Field(description="the discrepancies it saw, largest difference first")

    @classmethod
    def of(cls, report: driver.VerificationReport) -> Self:
        """The shape of a verification with what it found."""
        verification = report.verification
        return _taken_from(
            cls,
            verification,
            compared=RunsCompared.of(report.compared) if verification.scope == "checksums" else None,
            totals=[CauseTotal.of(total) for total in report.totals],
            discrepancies=[Discrepancy.of(each) for each in report.discrepancies],
        )


class ReconstructionResult(Shape):
    """One balance of a reconstruction, with the eight fields of the reference system's result."""

    balance_id: str = Field(description="the balance's id")
    currency: str = Field(description="its currency")
    verdict: str = Field(description="agrees, correct (it can be corrected), corrected, refused or stale")
    cause: str | None = Field(description="what the difference comes from; null: there is none")
    remark: str = Field(description="why it was refused or is stale, or which correction it got")
    evidence: dict[str, Any] = Field(description="the facts from which the cause follows, by name")
    executed_at: str = Field(description="when it was recalculated, UTC, in the reference system's form")
    previous_debit: PlainAmount = Field(description="debits as stored, minor units")
    previous_credit: PlainAmount = Field(description="credits as stored, minor units")
    previous_balance: PlainAmount = Field(description="the balance as stored, minor units")
    recalculated_debit: PlainAmount = Field(description="debits by the postings, minor units")
    recalculated_credit: PlainAmount = Field(description="credits by the postings, minor units")
    recalculated_balance: PlainAmount = Field(description="the balance by the postings, minor units")
    difference: PlainAmount = Field(description="what a correction adds: recalculated minus stored, minor units")
    previous_inflight_balance: Amount = Field(description="the inflight balance as stored, minor units")
    recalculated_inflight_balance: Amount = Field(description="the inflight balance by the postings, minor units")

    @classmethod
    def of(cls, result: recalculation.Result) -> Self:
        """The shape of one balance's result."""
        return _taken_from(
            cls,
            result,
            **result.as_reference(),
            previous_inflight_balance=result.previous.inflight_balance,
            recalculated_inflight_balance=result.recalculated.inflight_balance,
        )


class Reconstruction(Shape):
    """A reconstruction and its results."""

    reconstruction_id: int = Field(description="the reconstruction's id")
    mode: str = Field(description="report: changes nothing; apply: corrects what may be corrected")
    selection: str = Field(description="how the balances were chosen: given, discrepancies or requested")
    status: str = Field(description="open, proposed, ended, rejected or superseded")
    figures_hash: str | None = Field(description="hash of the proposed figures, which approves them; null: none yet")
    approval_reasons: list[str] | None = Field(description="why it needs an approval; null: not decided yet")
    proposed_by: str = Field(description="who proposed it; empty: not named")
    approved_by: str | None = Field(description="who approved it; null: nobody")
    results: list[ReconstructionResult] = Field(description="its balances, largest difference first")

    @classmethod
    def of(cls, reconstruction: reconstructions.Reconstruction, results: list[recalculation.Result]) -> Self:
        """The shape of a reconstruction with its results."""
        return _taken_from(cls, reconstruction, results=[ReconstructionResult.of(result) for result in results])


class _CorrectionHead(Shape):
    correction_id: int = Field(description="the correction's id")
    reconstruction_id: int = Field(description="the reconstruction that made it")
    balance_id: str = Field(description="the balance that was corrected")
    currency: str = Field(description="its currency")
    difference: Amount = Field(description="what was added to the balance, minor units")


class Correction(
    _then_amounts(  # type: ignore[misc]
        _then_amounts(_CorrectionHead, AMOUNT_COLUMNS, "before the correction", prefix="previous_"),
        AMOUNT_COLUMNS,
        "after the correction",
        prefix="corrected_",
    )
):
    """A line of the log of corrections."""

    previous_version: int = Field(description="the row's version before")
    corrected_version: int = Field(description="the row's version after")
    cause: str = Field(description="what the difference came from")
    evidence: dict[str, Any] = Field(description="the facts from which the cause follows, by name")
    reason: str = Field(description="why it was corrected, in the proposer's words")
    proposed_by: str = Field(description="who proposed it; empty: not named")
    approved_by: str | None = Field(description="who approved it; null: it was below the limits")
    figures_hash: str = Field(description="hash of the figures that were approved")
    base_run_id: int | None = Field(description="the close it was proved against; null: there was none")
    flow_run_id: str | None = Field(description="the flow run that made it; null: not made by a flow")
    drifted_since: Instant | None = Field(description="when the row was last seen to agree; null: not known")
    corrected_at: Instant = Field(description="when it was corrected")

    @classmethod
    def of(cls, correction: corrections.Correction) -> Self:
        """The shape of a correction."""
        return _taken_from(
            cls,
            correction,
            **correction.previous.as_columns("previous_"),
            **correction.corrected.as_columns("corrected_"),
        )


class Automation(Shape):
    """An automation of the project, and how it stands on the Prefect server."""

    name: str = Field(description="its name")
    state: str = Field(description="installed, differs, not installed or waiting")
    waiting_for: str | None = Field(description="the deployment that must be registered first; null: none")
    enabled: bool | None = Field(description="whether it is switched on; null: it is not installed")
    description: str = Field(description="what it does")
    automation_ids: list[str] = Field(description="its ids on the Prefect server")

    @classmethod
    def of(cls, standing: automations.Standing) -> Self:
        """The shape of an automation's standing."""
        return _taken_from(cls, standing, automation_ids=[str(automation.id) for automation in standing.installed])


class Finding(Shape):
    """One thing that the doctor examined."""

    subject: str = Field(description="what was examined")
    status: Literal["ok", "missing", "wrong"] = Field(description="wrong: it keeps the night from running")
    detail: str = Field(description="what was found, and what to do")

    @classmethod
    def of(cls, finding: doctor.Finding) -> Self:
        """The shape of a finding."""
        return _taken_from(cls, finding)
