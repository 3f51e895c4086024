"""PostgreSQL clusters of a test's own, of any version that is there: made, dumped, upgraded."""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from sqlalchemy import URL, Connection, text

from ledger_db.close.figure_digests import digest_figures
from ledger_db.close.runs import certified_run_ids
from ledger_db.server import embedded
from ledger_db.server.connections import make_engine
from ledger_db.settings import Settings
from tests.testing.books import Books, Ledger

DATABASE = "ledger"
_WITH_CUTS = ("clusters", "runs")
#: The program folders of each version: the wheel's two, and those of Debian's packages where they are.
VERSIONS = {
    15: Path("/usr/lib/postgresql/15/bin"),
    16: embedded.binaries().parents[1] / "pginstall" / "bin",
    18: embedded.binaries(),
}


def versions_to_come_from() -> list[int]:
    """The older versions whose programs are on this machine."""
    return [version for version, programs in VERSIONS.items() if version < 18 and (programs / "initdb").exists()]


@dataclass(frozen=True)
class Cluster:
    """A cluster in a folder, with a socket there and no port."""

    version: int
    folder: Path

    @property
    def data(self) -> Path:
        """Its data folder."""
        return self.folder / "data"

    def program(self, name: str) -> str:
        """The path of one of its version's programs."""
        return str(VERSIONS[self.version] / name)

    @classmethod
    def make(cls, version: int, folder: Path) -> Cluster:
        """A new cluster that does not run."""
        folder.mkdir(mode=0o755)
        if os.geteuid() == 0:
            os.chown(folder, *_service_user())
        cluster = cls(version, folder)
        cluster.run(
            "initdb", "-D", str(cluster.data), "-U", "postgres", "--auth=trust", "--encoding=UTF8", "--locale=C",
            "--no-sync", *(("--no-data-checksums",) if version >= 18 else ()),
        )  # fmt: skip
        with (cluster.data / "postgresql.conf").open("a") as configuration:
            configuration.write(f"listen_addresses = ''\nunix_socket_directories = '{folder}'\nfsync = off\n")
        return cluster

    def run(self, name: str, *arguments: str, stdin: str | None = None) -> str:
        """Run one of its programs as the user that owns the cluster; returns what it printed."""
        user = embedded.SERVICE_USER if os.geteuid() == 0 else None
        finished = subprocess.run(
            [self.program(name), *arguments],
            input=stdin, capture_output=True, text=True, cwd=self.folder, check=False,
            env={key: value for key, value in os.environ.items() if not key.startswith("PG")} | {"LC_ALL": "C"},
            user=user, group=_service_user()[1] if user else None, extra_groups=[] if user else None,
        )  # fmt: skip
        assert finished.returncode == 0, f"{name}: {finished.stdout[-3000:]}{finished.stderr[-3000:]}"
        return finished.stdout

    @contextmanager
    def running(self) -> Iterator[URL]:
        """Its server, while the block lasts; yields the URL of the database for the ledger, which is there then."""
        log = str(self.folder / "server.log")
        self.run("pg_ctl", "start", "-D", str(self.data), "-l", log, "-w", "-s")
        try:
            known = self._psql("postgres", f"SELECT count(*) FROM pg_database WHERE datname = '{DATABASE}'")
            if known.strip() == "0":
                self._psql("postgres", f"CREATE DATABASE {DATABASE}")
            yield URL.create(
                "postgresql+psycopg", username="postgres", database=DATABASE, query={"host": str(self.folder)}
            )
        finally:
            self.run("pg_ctl", "stop", "-D", str(self.data), "-m", "fast", "-w", "-s")

    def without_column_versions(self) -> None:
        """Remove what Debian's newest 15 notes of columns: the wheel's 18 is of an earlier date and refuses it."""
        self._psql(
            DATABASE,
            "SET allow_system_table_mods = on; "
            "UPDATE pg_attribute SET attoptions = NULL WHERE CAST(attoptions AS text) LIKE '%pg_attver%'",
        )

    def dump(self, programs: Cluster) -> str:
        """The ledger's database as SQL, by another version's program."""
        return programs.run("pg_dump", "-h", str(self.folder), "-U", "postgres", DATABASE)

    def load(self, dumped: str) -> None:
        """Run SQL in the ledger's database; the first error ends it."""
        self.run(
            "psql", "-h", str(self.folder), "-U", "postgres", "-d", DATABASE, "-v", "ON_ERROR_STOP=1", "-q", "-X",
            stdin=dumped,
        )  # fmt: skip

    def drop(self) -> None:
        """Drop the ledger's database and make an empty one."""
        for statement in (f"DROP DATABASE {DATABASE}", f"CREATE DATABASE {DATABASE}"):
            self._psql("postgres", statement)

    def upgrade_from(self, older: Cluster) -> None:
        """``pg_upgrade``; neither of them runs."""
        self.run(
            "pg_upgrade", "-b", str(VERSIONS[older.version]), "-B", str(VERSIONS[self.version]), "-d", str(older.data),
            "-D", str(self.data), "-U", "postgres", "-s", str(self.folder),
        )  # fmt: skip

    def _psql(self, database: str, statement: str) -> str:
        return self.run("psql", "-h", str(self.folder), "-U", "postgres", "-d", database, "-A", "-t", "-c", statement)


@contextmanager
def ledger_on(url: URL) -> Iterator[Ledger]:
    """A ledger's engine while the block lasts."""
    engine = make_engine(url, settings=Settings(_env_file=None))
    try:
        yield Ledger(url, engine)
    finally:
        engine.dispose()


def become_a_copy(connection: Connection, higher_by: int | None) -> None:
    """As if the ledger had been dumped in another cluster and restored here: its transaction ids are that one's.

    ``higher_by``: than they are; None: the lowest becomes the lowest that there is.
    """
    if higher_by is None:
        lowest = "SELECT 3 - min(xid::text::bigint) FROM (SELECT recorded_xid AS xid FROM blnk.transactions UNION ALL "
        cuts = " UNION ALL ".join(f"SELECT pg_snapshot_xmin(cut) FROM ledger_eod.{table}" for table in _WITH_CUTS)
        higher_by = int(connection.scalar(text(f"{lowest}{cuts}) AS used")) or 0)
    moved = f"({{}}::text::bigint + {higher_by})::text"
    running = f"(SELECT string_agg({moved.format('xid')}, ',') FROM pg_snapshot_xip(cut) AS xid)"
    ends = [moved.format(f"pg_snapshot_{end}(cut)") for end in ("xmin", "xmax")]
    cut = f"format('%s:%s:%s', {', '.join(ends)}, {running})::pg_snapshot"
    connection.execute(text("SET LOCAL session_replication_role = replica"))
    for table in _WITH_CUTS:
        connection.execute(text(f"UPDATE ledger_eod.{table} SET system_identifier = 'another', cut = {cut}"))
    connection.execute(text(f"UPDATE blnk.transactions SET recorded_xid = {moved.format('recorded_xid')}::xid8"))
    digest_again(connection)


def remove(folder: Path) -> None:
    """Remove a folder of clusters."""
    shutil.rmtree(folder, ignore_errors=True)


def pretend_restored(books: Books) -> None:
    """Make a ledger in place what a dump and restore makes of it: its ids and cuts are another cluster's, far ahead."""
    with books.engine.begin() as connection:
        become_a_copy(connection, higher_by=900_000_000)


def digest_again(connection: Connection) -> None:
    """Let the stored digests of runs and clusters say what these are now: a restore brings both as they were."""
    connection.execute(text("SET LOCAL session_replication_role = replica"))
    for run_id in certified_run_ids(connection):
        for subject, digest in digest_figures(connection, run_id).items():
            if subject in ("cluster", "run"):
                connection.execute(
                    text(
                        "UPDATE ledger_eod.figure_digests SET digest = :digest WHERE (run_id, subject) = (:id, :about)"
                    ),
                    {"digest": digest, "id": run_id, "about": subject},
                )


def _service_user() -> tuple[int, int]:
    entry = pwd.getpwnam(embedded.SERVICE_USER)
    return entry.pw_uid, entry.pw_gid
