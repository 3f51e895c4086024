"""Options that several commands share, and how dates and instants are read."""

from __future__ import annotations

from datetime import UTC, date, datetime
from enum import StrEnum
from typing import Annotated

import typer

from ledger_db.settings import get_settings


class RunKind(StrEnum):
    """The kinds of runs, as ``snapshot --kind`` takes them."""

    close = "close"
    interim = "interim"


class ListedKind(StrEnum):
    """The kinds of runs, as ``runs --kind`` takes them."""

    close = "close"
    interim = "interim"
    preparation = "preparation"


class VerificationScope(StrEnum):
    """The scopes of a verification, as ``verify --scope`` takes them."""

    since_close = "since-close"
    from_genesis = "from-genesis"
    checksums = "checksums"


class ReconstructionSelection(StrEnum):
    """The ways to choose balances, as ``reconstruct --select`` takes them."""

    given = "given"
    discrepancies = "discrepancies"
    requested = "requested"


def parse_date(text: str) -> date:
    """A date in ISO form."""
    try:
        return date.fromisoformat(text)
    except ValueError:
        raise typer.BadParameter(f"{text!r} is not a date; write for instance 2026-01-31") from None


def parse_instant(text: str) -> datetime:
    """An instant with its offset, or the instant at which a business date closes."""
    try:
        return get_settings().calendar.closes_at(date.fromisoformat(text))
    except ValueError:
        pass
    try:
        instant = datetime.fromisoformat(text)
    except ValueError:
        raise typer.BadParameter(
            f"{text!r} is not an instant; write for instance 2026-01-31T23:59:59+01:00, or a business date"
        ) from None
    if instant.tzinfo is None:
        raise typer.BadParameter(
            f"{text} has no offset, so it is a different instant in every zone; write for instance {text}+00:00"
        )
    return instant.astimezone(UTC)


JsonOption = Annotated[bool, typer.Option("--json", help="JSON: amounts as strings in minor units, instants in UTC.")]
BatchSizeOption = Annotated[
    int | None,
    typer.Option(
        "--batch-size", min=1, max=1_000_000, help="Balances in one database transaction.", show_default="configured"
    ),
]
VerboseOption = Annotated[bool, typer.Option("--verbose", "-v", help="Show Prefect's log as well.")]
CurrencyOption = Annotated[str | None, typer.Option("--currency", help="Only this currency.")]
NamedCurrencyOption = Annotated[str | None, typer.Option("--currency", help="Which @Name, when there are several.")]
BalanceArgument = Annotated[str, typer.Argument(metavar="BALANCE", help="A balance's id, or an indicator (@Name).")]
