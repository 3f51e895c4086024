"""The embedded PostgreSQL: started on demand, shared by processes, stopped by the last one, intact after any kill."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import create_engine, text
from sqlalchemy.pool import NullPool

from ledger_db.errors import ConfigurationError
from ledger_db.server import embedded
from tests.testing import PROJECT

#: A process that uses a folder's server until its standard input ends, and then exits.
USER = """
import sys
from pathlib import Path
from ledger_db.server import embedded
server = embedded.ensure_server(Path(sys.argv[1]))
print(server.pid, flush=True)
sys.stdin.read()
"""

#: A process that uses the configured ledger's database for a moment and exits; several start at the same time.
BRIEF_USER = """
from sqlalchemy import text
from ledger_db.server import connections as database
with database.transaction(database.ledger_engine(database.ledger_url(make=True))) as connection:
    print(connection.scalar(text("SELECT 40 + 2")), flush=True)
database.dispose_engines()
"""


@pytest.fixture
def folder(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder outside pytest's, which the server's user may not enter when pytest runs as root."""
    made = Path(tempfile.mkdtemp(prefix="eod-embedded-"))
    made.chmod(0o711)
    monkeypatch.setattr(tempfile, "tempdir", str(made))  # for the socket where its usual path is too long
    yield made
    for lock in list(made.rglob("users.lock")):
        embedded.release(lock.parent)
        embedded.stop(lock.parent)
    shutil.rmtree(made)


class User:
    """Another process that uses a folder's server."""

    def __init__(self, folder: Path) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", USER, str(folder)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
            cwd=PROJECT,
        )  # fmt: skip
        assert self.process.stdout is not None
        self.server_pid = int(self.process.stdout.readline())

    def leave(self) -> None:
        self.process.communicate(timeout=60)
        assert self.process.returncode == 0

    def kill(self) -> None:
        self.process.kill()
        self.process.communicate()


def users(folder: Path, count: int) -> list[User]:
    return [User(folder) for _ in range(count)]


def query(server: embedded.EmbeddedServer, statement: str) -> object:
    engine = create_engine(server.url("postgres"), poolclass=NullPool)
    with engine.begin() as connection:
        result = connection.execute(text(statement))
        return result.scalar() if result.returns_rows else None


def wait_until_gone(pid: int) -> None:
    deadline = time.monotonic() + 30
    while Path(f"/proc/{pid}").exists():
        assert time.monotonic() < deadline, f"process {pid} is still there"
        time.sleep(0.05)


def test_server_starts_on_demand_answers_and_stops_with_its_only_user(folder: Path) -> None:
    assert embedded.running_server(folder) is None
    server = embedded.ensure_server(folder)
    assert embedded.running_server(folder) == server
    assert query(server, "SELECT 40 + 2") == 42
    assert query(server, "SHOW listen_addresses") == ""
    assert query(server, "SHOW data_checksums") == "on"
    assert embedded.ensure_server(folder) == server
    embedded.release(folder)
    assert embedded.running_server(folder) is None
    wait_until_gone(server.pid)
    embedded.release(folder)  # a second call does nothing


def test_data_outlives_the_server(folder: Path) -> None:
    query(embedded.ensure_server(folder), "CREATE TABLE kept AS SELECT 'still here' AS word")
    embedded.release(folder)
    assert query(embedded.ensure_server(folder), "SELECT word FROM kept") == "still here"
    embedded.release(folder)


def test_second_process_adopts_the_running_server_and_the_last_to_leave_stops_it(folder: Path) -> None:
    first, second, third = users(folder, 3)
    assert first.server_pid == second.server_pid == third.server_pid
    first.leave()
    third.leave()
    assert embedded.running_server(folder) is not None
    second.leave()
    assert embedded.running_server(folder) is None


def test_processes_that_start_at_once_create_one_server_and_one_database(folder: Path) -> None:
    environment = {**os.environ, "LEDGER_DATA_FOLDER": str(folder)}
    started = [
        subprocess.Popen(
            [sys.executable, "-c", BRIEF_USER], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=PROJECT,
            env=environment,
        )
        for _ in range(4)
    ]  # fmt: skip
    ended = [process.communicate(timeout=120) for process in started]
    assert [(out.strip(), errors, process.returncode) for (out, errors), process in zip(ended, started, strict=True)] \
        == [("42", "", 0)] * 4  # fmt: skip
    assert embedded.running_server(folder) is None


def test_killed_user_leaves_a_server_that_the_next_process_adopts_and_stops(folder: Path) -> None:
    killed = User(folder)
    killed.kill()
    server = embedded.running_server(folder)
    assert server is not None
    following = User(folder)
    assert following.server_pid == killed.server_pid == server.pid
    following.leave()
    assert embedded.running_server(folder) is None


def test_killed_user_does_not_keep_the_server_from_the_others(folder: Path) -> None:
    stays, killed = users(folder, 2)
    killed.kill()
    assert embedded.running_server(folder) is not None
    stays.leave()
    assert embedded.running_server(folder) is None


def test_killed_server_is_started_again_with_what_was_committed(folder: Path) -> None:
    server = embedded.ensure_server(folder)
    query(server, "CREATE TABLE kept AS SELECT 'committed' AS word")
    os.kill(server.pid, signal.SIGKILL)
    wait_until_gone(server.pid)
    assert embedded.running_server(folder) is None
    again = embedded.ensure_server(folder)
    assert again.pid != server.pid
    assert query(again, "SELECT word FROM kept") == "committed"
    embedded.release(folder)


def test_incomplete_cluster_is_created_again(folder: Path) -> None:
    half = folder / "postgres.new"
    half.mkdir()
    (half / "PG_VERSION").write_text("18\n")
    assert query(embedded.ensure_server(folder), "SELECT 42") == 42
    embedded.release(folder)


@pytest.mark.parametrize(
    "name",
    ["two words and a ' quote", "Bücher & Konten (2026)", "/".join(["a very long path that no socket fits into"] * 4)],
    ids=["spaces", "signs", "long"],
)
def test_any_folder_will_do(folder: Path, name: str) -> None:
    odd = folder / name
    server = embedded.ensure_server(odd)
    assert query(server, "SELECT 42") == 42
    assert embedded.running_server(odd) == server
    embedded.release(odd)
    assert embedded.running_server(odd) is None


def test_another_process_with_the_servers_number_is_not_the_server(folder: Path) -> None:
    data = folder / "postgres"
    data.mkdir()
    lines = [str(os.getpid()), str(data), "0", "5432", str(data), "", "", "ready"]
    (data / "postmaster.pid").write_text("\n".join(lines) + "\n")
    assert embedded.running_server(folder) is None
    (data / "postmaster.pid").unlink()


def test_cluster_of_another_version_is_refused_and_left_alone(folder: Path) -> None:
    data = folder / "postgres"
    data.mkdir()
    (data / "PG_VERSION").write_text("17\n")
    with pytest.raises(ConfigurationError, match=r"was written by PostgreSQL 17; this version carries 18: dump it"):
        embedded.ensure_server(folder)
    embedded.release(folder)
    assert [path.name for path in data.iterdir()] == ["PG_VERSION"]


def test_folder_that_is_a_file_is_refused(folder: Path) -> None:
    (folder / "file").write_text("")
    with pytest.raises(ConfigurationError, match=r"^cannot use the data folder .*/file: File exists$"):
        embedded.ensure_server(folder / "file")
