"""Settings: where each is read from, and one clear line for each wrong value."""

from __future__ import annotations

import re
from datetime import time
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest
from sqlalchemy import make_url

from ledger_db import settings
from ledger_db.errors import ConfigurationError, Hint
from ledger_db.server import connections as database
from ledger_db.settings import Settings, get_settings
from tests.testing.books import Ledger


def test_without_any_setting_the_ledger_is_embedded_and_the_day_ends_at_midnight_utc() -> None:
    read = get_settings()
    assert read.database_url is None
    assert (read.zone, read.cut_off) == (ZoneInfo("UTC"), time(0))
    assert (read.batch_size, read.workers) == (1000, 4)
    assert (read.statement_timeout_seconds, read.lock_timeout_seconds) == (300, 10)
    assert read.data_folder == settings.project_folder() / ".ledger-eod"
    assert (read.notification_block, read.review_window_seconds) == (None, 15 * 60)
    assert (read.end_of_day_expected_seconds, read.late_run_seconds, read.silent_run_seconds) == (26 * 3600, 600, 600)


def test_settings_are_read_from_the_environment_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LEDGER_TIME_ZONE", "Europe/Berlin")
    monkeypatch.setenv("LEDGER_CUT_OFF", "17:00")
    monkeypatch.setenv("LEDGER_BATCH_SIZE", "250")
    assert (get_settings().zone, get_settings().cut_off) == (ZoneInfo("Europe/Berlin"), time(17))
    monkeypatch.setenv("LEDGER_BATCH_SIZE", "500")
    assert get_settings().batch_size == 250


def test_env_file_in_the_working_folder_is_read_and_the_environment_goes_first(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setitem(Settings.model_config, "env_file", ".env")
    monkeypatch.chdir(tmp_path)
    (tmp_path / ".env").write_text("LEDGER_WORKERS=2\nLEDGER_BATCH_SIZE=5\nOTHER=1\n")
    monkeypatch.setenv("LEDGER_BATCH_SIZE", "7")
    assert (get_settings().workers, get_settings().batch_size) == (2, 7)


@pytest.mark.parametrize(
    ("name", "value", "line"),
    [
        (
            "TIME_ZONE",
            "Berlin",
            "LEDGER_TIME_ZONE: 'Berlin' is not an IANA time zone; write for instance Europe/Berlin",
        ),
        ("CUT_OFF", "25:00", "LEDGER_CUT_OFF: "),
        ("CUT_OFF", "17:00+01:00", "LEDGER_CUT_OFF: must be a local time without offset, for instance 17:00"),
        ("BATCH_SIZE", "0", "LEDGER_BATCH_SIZE: "),
        ("BATCH_SIZE", "many", "LEDGER_BATCH_SIZE: "),
        ("WORKERS", "65", "LEDGER_WORKERS: "),
        ("STATEMENT_TIMEOUT_SECONDS", "0", "LEDGER_STATEMENT_TIMEOUT_SECONDS: "),
        ("LOCK_TIMEOUT_SECONDS", "3601", "LEDGER_LOCK_TIMEOUT_SECONDS: "),
        ("NOTIFICATION_BLOCK", "finance", "LEDGER_NOTIFICATION_BLOCK: 'finance' is not type and name of a block"),
        ("NOTIFICATION_BLOCK", "slack-webhook/", "LEDGER_NOTIFICATION_BLOCK: 'slack-webhook/' is not type and name"),
        ("REVIEW_WINDOW_SECONDS", "-1", "LEDGER_REVIEW_WINDOW_SECONDS: "),
        ("END_OF_DAY_EXPECTED_SECONDS", "9", "LEDGER_END_OF_DAY_EXPECTED_SECONDS: "),
        ("DATABASE_URL", "mysql://root:hunter2@host/db", "LEDGER_DATABASE_URL: must be a PostgreSQL URL such as"),
        ("DATABASE_URL", "not a url hunter2", "LEDGER_DATABASE_URL: must be a PostgreSQL URL such as"),
    ],
)
def test_wrong_value_is_named_in_one_line(monkeypatch: pytest.MonkeyPatch, name: str, value: str, line: str) -> None:
    monkeypatch.setenv(f"LEDGER_{name}", value)
    with pytest.raises(ConfigurationError) as refusal:
        get_settings()
    message = str(refusal.value)
    assert message.startswith(line)
    assert "\n" not in message
    assert "hunter2" not in message


def test_every_wrong_value_is_named_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LEDGER_WORKERS", "0")
    monkeypatch.setenv("LEDGER_TIME_ZONE", "Mars/Olympus")
    with pytest.raises(ConfigurationError) as refusal:
        get_settings()
    assert {"LEDGER_WORKERS", "LEDGER_TIME_ZONE"} <= set(re.findall(r"LEDGER_[A-Z_]+", str(refusal.value)))


def test_a_misspelled_setting_is_named_with_the_one_that_is_meant(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("LEDGER_TIME_ZOEN", "Europe/Berlin")
    monkeypatch.setitem(Settings.model_config, "env_file", (tmp_path / "none", tmp_path / ".env"))
    (tmp_path / ".env").write_text("ledger_db_url=postgresql://host/ledger\n")
    with pytest.raises(ConfigurationError) as refusal:
        get_settings()
    assert str(refusal.value) == (
        "LEDGER_DB_URL is no setting: LEDGER_DATABASE_URL is meant; "
        "LEDGER_TIME_ZOEN is no setting: LEDGER_TIME_ZONE is meant"
    )


@pytest.mark.parametrize("short", ["URL", "DB", "DSN", "TZ", "ZONE"])
def test_a_short_name_is_no_setting(monkeypatch: pytest.MonkeyPatch, short: str) -> None:
    monkeypatch.setenv(f"LEDGER_{short}", "x")
    with pytest.raises(ConfigurationError, match=f"^LEDGER_{short} is no setting: LEDGER_(DATABASE_URL|TIME_ZONE) is"):
        get_settings()


def test_variables_of_other_programs_are_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("FILE", "INIT", "PRICE_DB", "DATE_FORMAT", "PAGER", "EOD"):
        monkeypatch.setenv(f"LEDGER_{name}", "x")
    assert get_settings().database_url is None


def test_without_any_setting_no_ledger_is_made_on_the_way(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("LEDGER_DATA_FOLDER", str(tmp_path / "none"))
    with pytest.raises(ConfigurationError, match=r"^no ledger is named: LEDGER_DATABASE_URL is not set") as refusal:
        database.ledger_engine()
    assert refusal.value.hint is Hint.name_the_ledger
    assert not (tmp_path / "none").exists()


def test_password_is_not_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LEDGER_DATABASE_URL", "postgresql://eod:hunter2@db:5432/ledger")
    assert "hunter2" not in repr(get_settings())


def test_empty_url_means_embedded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LEDGER_DATABASE_URL", " ")
    assert get_settings().database_url is None


def test_empty_notification_block_means_the_log(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LEDGER_NOTIFICATION_BLOCK", " ")
    assert get_settings().notification_block is None


@pytest.mark.parametrize(
    "written",
    [
        "postgres://eod:p%40ss@db:5432/ledger",
        "postgresql://eod:p%40ss@db:5432/ledger",
        "postgresql+psycopg://eod:p%40ss@db:5432/ledger",
        "postgresql+psycopg2://eod:p%40ss@db:5432/ledger",
    ],
)
def test_every_spelling_of_a_url_names_the_same_database(monkeypatch: pytest.MonkeyPatch, written: str) -> None:
    monkeypatch.setenv("LEDGER_DATABASE_URL", written)
    assert database.ledger_url() == make_url("postgresql+psycopg://eod:p%40ss@db:5432/ledger")


def test_sessions_have_the_settings_limits_and_the_urls_own_options(ledger: Ledger) -> None:
    limited = Settings(statement_timeout_seconds=7, lock_timeout_seconds=3)
    url = ledger.url.update_query_dict({"options": "-c work_mem=5MB"})
    engine = database.make_engine(url, settings=limited)
    with engine.connect() as connection:
        shown = [
            connection.exec_driver_sql(f"SHOW {name}").scalar()
            for name in ("statement_timeout", "lock_timeout", "timezone", "application_name", "work_mem")
        ]
    engine.dispose()
    assert shown == ["7s", "3s", "UTC", "ledger-eod", "5MB"]


def test_unreachable_ledger_is_reported_without_its_password() -> None:
    engine = database.make_engine(make_url("postgresql+psycopg://eod:hunter2@127.0.0.1:1/ledger"))
    with pytest.raises(ConfigurationError, match=r"^cannot reach the ledger at .*127\.0\.0\.1:1") as refusal:
        database.reachable(engine)
    engine.dispose()
    assert "hunter2" not in str(refusal.value)


@pytest.mark.parametrize(
    "written",
    [
        "postgresql://ledger:hush@db:5433/blnk",
        "postgres://ledger:hush@db:5433/blnk",
        "postgresql+psycopg://db:5433/blnk?user=ledger&password=hush",
        "postgresql://db:5433/blnk?user=ledger&password=hush&sslpassword=hush",
    ],
)
def test_a_url_is_shown_without_its_passwords_wherever_they_stand(written: str) -> None:
    url = database.normalised(written)
    assert (url.username, url.password, url.host, url.port, url.database) == ("ledger", "hush", "db", 5433, "blnk")
    assert "hush" not in database.display_url(url)
    assert "ledger" in database.display_url(url)
