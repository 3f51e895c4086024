"""Import transactions from a CSV file: all of its rows, or none and a list of what is wrong with them.

The file is UTF-8 with a header; docs/import.md describes the columns. Rows are read one at a time and copied into a
temporary table. Set-based statements then check and record them.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, field
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import BinaryIO, Final
from uuid import uuid4

from sqlalchemy import Connection, TextClause, text

from ledger_db.books.recording import (
    DEFAULT_PRECISION,
    apply_recorded,
    decimals_of,
    driver_connection,
    newest_recorded_key,
)
from ledger_db.errors import BadImport, BookingRefused
from ledger_db.postings.rules import STATUSES, statement
from ledger_db.server.connections import without_time_limit

REQUIRED_COLUMNS: Final = ("reference", "source", "destination", "amount", "currency")
OPTIONAL_COLUMNS: Final = (
    "precision", "status", "effective_date", "created_at", "parent_reference", "description"
)  # fmt: skip
SHOWN_PROBLEMS: Final = 50
LONGEST_TEXT: Final = 1_000
LONGEST_AMOUNT: Final = 1_000

_AMOUNT = re.compile(r"([0-9]+)(?:\.([0-9]+))?")
_UNPRINTABLE = re.compile(r"[\x00-\x1f\x7f\ud800-\udfff]")

_STAGED_COLUMNS: Final = (
    "line_number", "transaction_id", "reference", "source", "destination", "amount", "precise_amount", "precision",
    "currency", "status", "effective_date", "created_at", "parent_reference", "description",
)  # fmt: skip


@dataclass(frozen=True)
class ImportResult:
    """How many transactions an import recorded, and how many stored balance rows they changed."""

    transaction_count: int
    moved_balance_count: int


@dataclass
class _Problems:
    """What is wrong with a file: the first problems in line order, and the count of all."""

    path: Path
    count: int = 0
    shown: list[tuple[int, str]] = field(default_factory=list)

    def add(self, line: int, problem: str) -> None:
        self.count += 1
        if len(self.shown) < SHOWN_PROBLEMS:
            self.shown.append((line, problem))

    def extend(self, found: list[tuple[int, str]]) -> None:
        """Add what a later check found on other lines, in line order."""
        self.count += len(found)
        self.shown = sorted([*self.shown, *found[:SHOWN_PROBLEMS]])[:SHOWN_PROBLEMS]

    def raise_any(self) -> None:
        if self.count:
            lines = [f"line {line}: {problem}" for line, problem in self.shown]
            if self.count > len(lines):
                lines.append(f"and {self.count - len(lines)} more")
            rows = "1 row" if self.count == 1 else f"{self.count} rows"
            raise BadImport("\n".join([f"{self.path.name}: {rows} cannot be booked, nothing was loaded", *lines]))


def import_transactions(connection: Connection, path: Path | str) -> ImportResult:
    """Record every row of a file in the caller's database transaction and update the stored balance rows.

    A second call with the same file is refused, because its references are in the ledger. Waits for other writers of
    the same balances, and locks the balances in key order until the transaction ends.

    Raises:
        BadImport: the file cannot be read, or rows cannot be booked: the first 50 of them with their line numbers, and
            the count of all. Nothing is recorded. Whether commits fit their holds is checked last.
    """
    path = Path(path)
    problems = _Problems(path)
    try:
        file = path.open("rb")
    except OSError as error:
        raise BadImport(f"cannot read {path}: {error.strerror or error}") from None
    with closing(file), connection.begin_nested():
        without_time_limit(connection)
        staged = _stage(connection, file, problems)
        if staged == 0 and problems.count == 0:
            raise BadImport(f"{path.name} has a header and no rows: nothing was loaded")
        _resolve_import_rows(connection)
        problems.extend(_find_bad_import_rows(connection))
        problems.raise_any()
        after_key = newest_recorded_key(connection)
        recorded = _record_import_rows(connection)
        if recorded < staged:
            raise BadImport(
                f"{path.name}: another user recorded {staged - recorded} of {staged} references at the same time; "
                "nothing was loaded, import it again to see which"
            )
        moved = apply_recorded(connection, after_key=after_key)
        # The balances are locked now, so no other session can settle these holds any more.
        _require_holds(connection, problems)
        connection.execute(text("DROP TABLE import_rows, import_holds"))
    return ImportResult(recorded, moved)


def _require_holds(connection: Connection, problems: _Problems) -> None:
    """Refuse commits and voids that do not fit their hold. The rows are recorded and their balances locked before."""
    problems.extend(_find_misfit_import_rows(connection))
    problems.raise_any()
    _stage_import_holds(connection)
    problems.extend(_find_overdrawn_import_rows(connection))
    problems.raise_any()


def _resolve_import_rows(connection: Connection) -> None:
    connection.execute(statement(connection, "books.resolve_import_rows"))


def _find_bad_import_rows(connection: Connection) -> list[tuple[int, str]]:
    return _by_line(connection, statement(connection, "books.find_bad_import_rows"))


def _record_import_rows(connection: Connection) -> int:
    return connection.execute(statement(connection, "books.record_import_rows")).rowcount


def _find_misfit_import_rows(connection: Connection) -> list[tuple[int, str]]:
    return _by_line(connection, statement(connection, "books.find_misfit_import_rows"))


def _stage_import_holds(connection: Connection) -> None:
    connection.execute(statement(connection, "books.stage_import_holds"))
    connection.execute(text("ANALYZE import_holds"))


def _find_overdrawn_import_rows(connection: Connection) -> list[tuple[int, str]]:
    return _by_line(connection, statement(connection, "books.find_overdrawn_import_rows"))


def _by_line(connection: Connection, check: TextClause) -> list[tuple[int, str]]:
    return [(row.line, row.problem) for row in connection.execute(check)]


def _stage(connection: Connection, file: BinaryIO, problems: _Problems) -> int:
    """Copy the readable rows into a temporary table and return their count; add what is wrong with the others."""
    rows = _rows(file, problems)
    connection.execute(
        text(
            """
            CREATE TEMPORARY TABLE import_rows (
                line_number bigint PRIMARY KEY, transaction_id text NOT NULL, reference text NOT NULL,
                source text NOT NULL, destination text NOT NULL, amount numeric NOT NULL,
                precise_amount numeric NOT NULL, precision bigint NOT NULL, currency text NOT NULL,
                status text NOT NULL, effective_date timestamp, created_at timestamp, parent_reference text,
                description text, source_id text, destination_id text, parent_id text
            ) ON COMMIT DROP
            """
        )
    )
    count = 0
    with (
        driver_connection(connection).cursor() as cursor,
        cursor.copy(f"COPY import_rows ({', '.join(_STAGED_COLUMNS)}) FROM STDIN") as copy,
    ):
        for line, cells in rows:
            try:
                copy.write_row((line, *_read_row(cells)))
                count += 1
            except _BadRow as bad:
                problems.add(line, str(bad))
    connection.execute(text("CREATE INDEX ON import_rows (reference)"))
    connection.execute(text("ANALYZE import_rows"))
    return count


class _BadRow(Exception):
    """What is wrong with one row."""


def _rows(file: BinaryIO, problems: _Problems) -> Iterator[tuple[int, dict[str, str]]]:
    """The file's rows as cells by column, each with the number of its last line. Blank lines are skipped."""
    reader = csv.reader(_lines(file), strict=True)
    try:
        header = next(reader, None)
        columns = _columns(header, problems.path.name)
        for cells in reader:
            if not cells:
                continue
            if len(cells) != len(columns):
                problems.add(reader.line_num, f"{len(cells)} columns, the header has {len(columns)}")
                continue
            yield reader.line_num, dict(zip(columns, cells, strict=True))
    except csv.Error as error:
        problems.add(reader.line_num, f"not CSV from here on: {error}")


def _lines(file: BinaryIO) -> Iterator[str]:
    """The file's lines. Bytes that are not UTF-8 become lone surrogates, which the check of a row finds."""
    for number, line in enumerate(file):
        read = line.decode("utf-8", errors="surrogateescape")
        yield read.removeprefix("\ufeff") if number == 0 else read


def _columns(header: list[str] | None, name: str) -> list[str]:
    if header is None:
        raise BadImport(f"{name} is empty: the first line names the columns {', '.join(REQUIRED_COLUMNS)}")
    columns = [column.strip() for column in header]
    if any(_UNPRINTABLE.search(column) for column in columns):
        raise BadImport(f"{name} line 1: not UTF-8 text; save the file as CSV UTF-8")
    missing = [column for column in REQUIRED_COLUMNS if column not in columns]
    if missing:
        raise BadImport(f"{name} line 1: the header lacks {', '.join(missing)}; it must name them, separated by commas")
    unknown = [column for column in columns if column not in (*REQUIRED_COLUMNS, *OPTIONAL_COLUMNS)]
    if unknown:
        raise BadImport(f"{name} line 1: unknown column {unknown[0]!r}; optional are {', '.join(OPTIONAL_COLUMNS)}")
    if len(set(columns)) < len(columns):
        raise BadImport(f"{name} line 1: the header names a column twice")
    return columns


def _read_row(cells: dict[str, str]) -> tuple[object, ...]:
    """A row's values for the temporary table, from ``transaction_id`` on.

    Raises:
        _BadRow: the first problem of the row.
    """
    cells = {column: cell.strip() for column, cell in cells.items()}
    for column, cell in cells.items():
        if _UNPRINTABLE.search(cell):
            raise _BadRow(f"{column} holds a control character or is not UTF-8")
        if len(cell) > LONGEST_TEXT:
            raise _BadRow(f"{column} has {len(cell)} characters, {LONGEST_TEXT} is the most")
        if not cell and column in REQUIRED_COLUMNS:
            raise _BadRow(f"{column} is empty")
    precision, decimals = _precision(cells.get("precision", ""))
    amount_minor = _amount_minor(cells["amount"], precision, decimals)
    status = cells.get("status") or "APPLIED"
    if status not in STATUSES:
        raise _BadRow(f"status {status!r} is none of {', '.join(STATUSES)}")
    return (
        f"txn_{uuid4()}",
        cells["reference"],
        cells["source"],
        cells["destination"],
        Decimal(f"{amount_minor}E-{decimals}"),
        Decimal(amount_minor),
        precision,
        cells["currency"],
        status,
        _naive_utc("effective_date", cells.get("effective_date", "")),
        _naive_utc("created_at", cells.get("created_at", "")),
        cells.get("parent_reference") or None,
        cells.get("description") or None,
    )


def _precision(written: str) -> tuple[int, int]:
    """The precision and its number of decimals."""
    if not written:
        return DEFAULT_PRECISION, decimals_of(DEFAULT_PRECISION)
    try:
        precision = int(written) if re.fullmatch("[0-9]{1,19}", written) else 0
        return precision, decimals_of(precision)
    except BookingRefused:
        raise _BadRow(f"precision {written!r} is not a power of ten from 1 to 10^18") from None


def _amount_minor(written: str, precision: int, decimals: int) -> int:
    """The exact amount in minor units."""
    match = _AMOUNT.fullmatch(written)
    if match is None or len(written) > LONGEST_AMOUNT:
        raise _BadRow(f"amount {written!r} is not a plain positive decimal number such as 1200.00")
    units, fraction = match.group(1), match.group(2) or ""
    if len(fraction) > decimals:
        raise _BadRow(f"amount {written} has {len(fraction)} decimals, precision {precision} allows {decimals}")
    amount_minor = int(units + fraction.ljust(decimals, "0"))
    if amount_minor == 0:
        raise _BadRow(f"amount {written} is zero")
    return amount_minor


def _naive_utc(column: str, written: str) -> datetime | None:
    if not written:
        return None
    try:
        instant = datetime.fromisoformat(written)
        if instant.tzinfo is None:
            raise _BadRow(f"{column} {written} has no offset: write for instance {instant.isoformat()}+00:00")
        return instant.astimezone(UTC).replace(tzinfo=None)
    except (ValueError, OverflowError):
        raise _BadRow(f"{column} {written!r} is no ISO 8601 instant such as 2026-01-31T23:59:00+01:00") from None
