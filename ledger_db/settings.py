"""All settings of the project, typed and checked in one place.

A setting is an environment variable with the prefix ``LEDGER_``, or a line of a ``.env`` file in the checkout or in the
working folder. The environment overrides the working folder's file, which overrides the checkout's.
"""

from __future__ import annotations

import os
from datetime import time
from decimal import Decimal
from difflib import get_close_matches
from functools import lru_cache
from pathlib import Path
from typing import Annotated, Final
from zoneinfo import ZoneInfo, available_timezones

from dotenv import dotenv_values
from pydantic import Field, SecretStr, ValidationError, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict, SettingsError
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError

from ledger_db.core.calendar import BusinessCalendar
from ledger_db.errors import ConfigurationError


def project_folder() -> Path:
    """The checkout that this package runs from, or the working folder when the package is installed elsewhere."""
    checkout = Path(__file__).resolve().parent.parent
    return checkout if (checkout / "prefect.yaml").is_file() else Path.cwd()


_PREFIX: Final = "LEDGER_"
_ENV_FILES: Final = (project_folder() / ".env", Path(".env"))
LOOKS_LIKE: Final = 0.8  # by difflib: LEDGER_DB_URL is meant for ours, LEDGER_FILE is of another program
_SHORT_FOR: Final = dict.fromkeys(("URL", "DB", "DSN", "DATABASE"), "LEDGER_DATABASE_URL") | dict.fromkeys(
    ("TZ", "ZONE"), "LEDGER_TIME_ZONE"
)


class Settings(BaseSettings):
    """The settings of one process. Users see the descriptions of the fields, also in the README."""

    model_config = SettingsConfigDict(env_prefix=_PREFIX, env_file=_ENV_FILES, extra="ignore", frozen=True)

    database_url: SecretStr | None = Field(
        None, description="the ledger: a SQLAlchemy or libpq PostgreSQL URL; unset: an embedded PostgreSQL"
    )
    time_zone: str = Field("UTC", description="IANA zone of the business calendar")
    cut_off: time = Field(
        time(0), description="local time at which a business date closes; before noon: on the next calendar day"
    )
    batch_size: Annotated[int, Field(ge=1, le=1_000_000)] = Field(
        1000, description="balances written in one database transaction"
    )
    piece_size: Annotated[int, Field(ge=1, le=1_000_000)] = Field(
        500_000,
        description="transactions that a close counts in one statement; each takes 0.6 kB of the database's memory",
    )
    workers: Annotated[int, Field(ge=1, le=64)] = Field(4, description="batches that run at the same time")
    statement_timeout_seconds: Annotated[int, Field(ge=1, le=86_400)] = Field(
        300, description="longest time one statement of a batch may take"
    )
    lock_timeout_seconds: Annotated[int, Field(ge=1, le=3_600)] = Field(
        10, description="longest time to wait for a lock before the batch is tried again"
    )
    approval_limits: dict[str, Decimal] = Field(
        default_factory=dict,
        description='how much may be corrected without an approval, minor units by currency: {"USD": 5000}; '
        "a currency that is not listed: nothing",
    )
    approval_balances: Annotated[int, Field(ge=0, le=1_000_000)] = Field(
        10, description="how many balances may be corrected without an approval"
    )
    approval_hours: Annotated[int, Field(ge=1, le=8_760)] = Field(
        24, description="how long a proposed correction waits for approval, and how long an approval can be used"
    )
    data_folder: Path = Field(
        default_factory=lambda: project_folder() / ".ledger-eod",
        description="where the embedded PostgreSQL and the local Prefect server keep their data",
    )
    notification_block: str | None = Field(
        None,
        description="Prefect block that sends notifications, as type/name, for instance slack-webhook/finance; "
        "unset: notifications are warnings in the log",
    )
    review_window_seconds: Annotated[int, Field(ge=0, le=604_800)] = Field(
        900, description="time from finding discrepancies to the report of what would correct them"
    )
    end_of_day_expected_seconds: Annotated[int, Field(ge=10, le=604_800)] = Field(
        93_600, description="longest time without a completed end of day before a notification is sent (26 hours)"
    )
    late_run_seconds: Annotated[int, Field(ge=10, le=86_400)] = Field(
        600, description="how late a run may start before a notification is sent"
    )
    silent_run_seconds: Annotated[int, Field(ge=10, le=86_400)] = Field(
        600, description="longest time without a run's heartbeat (every 180 seconds) before it counts as crashed"
    )

    @field_validator("database_url")
    @classmethod
    def _is_postgresql(cls, value: SecretStr | None) -> SecretStr | None:
        if value is None or not value.get_secret_value().strip():
            return None
        try:
            backend = make_url(value.get_secret_value().replace("postgres://", "postgresql://", 1)).get_backend_name()
        except (ArgumentError, ValueError):
            backend = None
        if backend != "postgresql":
            raise ValueError("must be a PostgreSQL URL such as postgresql://user:password@host:5432/database")
        return value

    @field_validator("time_zone")
    @classmethod
    def _is_known_zone(cls, value: str) -> str:
        if value not in available_timezones():
            raise ValueError(f"{value!r} is not an IANA time zone; write for instance Europe/Berlin or UTC")
        return value

    @field_validator("cut_off")
    @classmethod
    def _is_local_time(cls, value: time) -> time:
        if value.tzinfo is not None:
            raise ValueError("must be a local time without offset, for instance 17:00")
        return value

    @field_validator("approval_limits")
    @classmethod
    def _are_amounts(cls, value: dict[str, Decimal]) -> dict[str, Decimal]:
        wrong = [currency for currency, limit in value.items() if limit < 0 or limit != limit.to_integral_value()]
        if wrong:
            raise ValueError(f"the limit of {wrong[0]} must be a whole number of minor units, zero or more")
        return value

    @field_validator("notification_block")
    @classmethod
    def _is_block_name(cls, value: str | None) -> str | None:
        if value is None or not value.strip():
            return None
        if not all(part.strip() for part in value.partition("/")):
            raise ValueError(f"{value!r} is not type and name of a block; write for instance slack-webhook/finance")
        return value.strip()

    @property
    def zone(self) -> ZoneInfo:
        """The business calendar's zone."""
        return ZoneInfo(self.time_zone)

    @property
    def calendar(self) -> BusinessCalendar:
        """The business calendar with this zone and cut-off."""
        return BusinessCalendar(zone=self.zone, cut_off=self.cut_off)


def misspelled() -> dict[str, str]:
    """Variables that look like a misspelled setting, each with the setting that is meant.

    Other programs use names with this prefix too; what looks like none of ours is left alone.
    """
    found = {}
    for name in _unknown_variables():
        near = get_close_matches(name, _known_variables(), n=1, cutoff=LOOKS_LIKE)
        if meant := _SHORT_FOR.get(name.removeprefix(_PREFIX)) or (near[0] if near else None):
            found[name] = meant
    return found


def other_variables() -> list[str]:
    """Variables with this project's prefix that are no settings and look like none."""
    wrong = misspelled()
    return [name for name in _unknown_variables() if name not in wrong]


def _known_variables() -> set[str]:
    return {f"{_PREFIX}{name}".upper() for name in Settings.model_fields}


def _unknown_variables() -> list[str]:
    files = Settings.model_config.get("env_file") or ()
    paths = [Path(file) for file in ([files] if isinstance(files, str | Path) else files)]
    given = {name.upper() for name in os.environ}
    given |= {name.upper() for path in paths if path.is_file() for name in dotenv_values(path)}
    return sorted(name for name in given - _known_variables() if name.startswith(_PREFIX))


@lru_cache(maxsize=1)
def get_settings() -> Settings:
    """This process's settings, read once.

    Raises:
        ConfigurationError: values are wrong, or names misspelled; one line names each variable and what it must be.
    """
    if wrong := misspelled():
        raise ConfigurationError("; ".join(f"{name} is no setting: {meant} is meant" for name, meant in wrong.items()))
    try:
        return Settings()
    except ValidationError as error:
        problems = [
            f"LEDGER_{'_'.join(str(part) for part in problem['loc']).upper()}: "
            f"{problem['msg'].removeprefix('Value error, ')}"
            for problem in error.errors(include_url=False, include_input=False)
        ]
        raise ConfigurationError("; ".join(problems)) from None
    except SettingsError:  # only this setting is JSON
        raise ConfigurationError(
            'LEDGER_APPROVAL_LIMITS: must be a JSON object of minor units by currency, for instance {"USD": 5000}'
        ) from None
