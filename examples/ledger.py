"""What the examples share: an empty ledger, entries written as a table, and the command line on that ledger."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from datetime import date, datetime, timedelta
from pathlib import Path

from sqlalchemy import Engine, create_engine, text

from ledger_db.attach.migrate import migrate
from ledger_db.books.accounts import create_balance, list_balances
from ledger_db.books.recording import Movement, record_many
from ledger_db.core.calendar import BusinessCalendar
from ledger_db.server import embedded
from ledger_db.server.connections import make_engine
from ledger_db.settings import get_settings

COMMAND = Path(sys.executable).with_name("ledger-eod")


def show(line: str = "") -> None:
    """Print a line at once, so that it stands before what a command prints after it."""
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def figure(minor_units: object) -> str:
    """Minor units for a reader: thousands separators, no decimals."""
    return f"{minor_units:,}"


def on_a_fresh_ledger(example: Callable[[Engine], None]) -> None:
    """Run an example on a database that is made anew for it; no other ledger is touched."""
    name = f"example_{Path(sys.argv[0]).stem}"
    server = embedded.ensure_server(get_settings().data_folder)
    administration = create_engine(server.url("postgres"), isolation_level="AUTOCOMMIT")
    with administration.connect() as connection:
        connection.execute(text(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)"))
        connection.execute(text(f"CREATE DATABASE {name}"))
    administration.dispose()
    engine = make_engine(server.url(name))
    migrate(engine)
    example(engine)
    engine.dispose()


def shortly_after(day: date) -> datetime:
    """Five minutes after a business date of the default calendar has ended: when an example's night begins."""
    return BusinessCalendar().closes_at(day) + timedelta(minutes=5)


def open_balances(engine: Engine, *names: str, currency: str = "USD") -> None:
    """Make balances at zero: ``@Name`` is an internal one, every other name is the id itself."""
    with engine.begin() as connection:
        for name in names:
            internal = name if name.startswith("@") else None
            create_balance(connection, currency=currency, indicator=internal, balance_id=balance_id(name))


def balance_id(name: str) -> str:
    """The id of a balance of the examples."""
    return f"bln_{name[1:].lower()}" if name.startswith("@") else name


def post(engine: Engine, table: str) -> None:
    """Record transactions in one database transaction. One line each: reference, effective date and time (UTC), source,
    destination, amount in minor units, currency, and a status unless it is APPLIED.
    """
    movements = []
    for line in table.strip().splitlines():
        reference, day, time, source, destination, amount, currency, *status = line.split()
        movements.append(
            Movement(
                source=balance_id(source), destination=balance_id(destination), amount_minor=int(amount),
                currency=currency, reference=reference, transaction_id=f"txn_{reference}",
                created_at=datetime.fromisoformat(f"{day}T{time}+00:00"), status=status[0] if status else "APPLIED",  # type: ignore[arg-type]
            )
        )  # fmt: skip
    with engine.begin() as connection:
        record_many(connection, movements)


def show_balances(engine: Engine) -> None:
    """Print every balance as it is stored."""
    show(f"  {'balance':<14} {'stored':>12} {'credits':>12} {'debits':>12} {'on hold':>12}")
    with engine.connect() as connection:
        for row in list_balances(connection, limit=100):
            amounts = (row.balance, row.credit_balance, row.debit_balance, row.inflight_balance)
            show(f"  {row.balance_id:<14} " + " ".join(f"{figure(amount):>12}" for amount in amounts))


def sql(engine: Engine, statement: str) -> None:
    """Change the ledger by hand, behind its application's back."""
    show(f'\n$ psql -c "{statement}"')
    with engine.begin() as connection:
        connection.execute(text(statement))


def command_line(engine: Engine, *arguments: str, code: int = 0) -> None:
    """Run ``ledger-eod`` on the example's ledger and print what it answers.

    Raises:
        RuntimeError: it ended with another exit code.
    """
    show(f"\n$ ledger-eod {' '.join(f'{each!r}' if ' ' in each else each for each in arguments)}")
    settings = {
        "LEDGER_DATABASE_URL": engine.url.render_as_string(hide_password=False), "PYTHONUTF8": "1",
        "LEDGER_TIME_ZONE": "UTC", "LEDGER_CUT_OFF": "00:00",
    }  # fmt: skip
    answer = subprocess.run(  # noqa: S603
        [COMMAND, *arguments], env=os.environ | settings, cwd=Path(__file__).parent.parent, capture_output=True,
        encoding="utf-8", check=False,
    )  # fmt: skip
    show("\n".join(line.rstrip() for line in (answer.stdout + answer.stderr).splitlines()))
    if answer.returncode != code:
        raise RuntimeError(f"ledger-eod {arguments[0]} ended with {answer.returncode}, not {code}")
