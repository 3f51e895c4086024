"""Digests for old closes: what they stored of their rows adds up hashes, which can be forged.

A close from before rows were counted by their keys gets the digests that later ones have, provided that its rows are
still those of its checksums. They are marked with the instant at which they were made, and stored once.
"""

from __future__ import annotations

from dataclasses import asdict
from enum import StrEnum

from sqlalchemy import Connection, Engine, exists, select
from sqlalchemy.dialects.postgresql import insert as insert_or_ignore

from ledger_db.close import tables
from ledger_db.close.driver import SILENT, Report
from ledger_db.close.new_chain import chain_was_ended
from ledger_db.close.row_checksums import checksum_rows, has_known_keys, stored_checksums
from ledger_db.close.row_digests import digest_rows, later_digests
from ledger_db.close.runs import Run, all_runs, select_runs
from ledger_db.server.connections import one_snapshot, without_time_limit


class Fate(StrEnum):
    """What became of an old close."""

    digested = "digested anew"
    digested_before = "digested anew before"
    differs = "left as it is: its rows are not those of its checksums"
    no_checksums = "left as it is: made before checksums were stored"
    ended = "left as it is: of a chain that an approved new one has ended"
    unknown_rows = "left as it is: it is not known which rows it counted"


def digest_old_closes(engine: Engine, *, report: Report = SILENT) -> dict[Fate, list[Run]]:
    """Digest the rows of every old close anew, oldest first, each in a transaction of its own; what became of them.

    Reads the ledger, locks none of it. A second call finds nothing to do.
    """
    found: dict[Fate, list[Run]] = {}
    with engine.begin() as connection:
        of_old_kind = _closes_of_old_kind(connection)
    for run in of_old_kind:
        with engine.begin() as connection:
            one_snapshot(connection)  # so that the rows that are digested are those that were compared
            without_time_limit(connection)
            fate = _digest_anew(connection, run)
        if fate is not None:
            found.setdefault(fate, []).append(run)
            report("digested", run.run_id)
    return found


def old_closes(connection: Connection) -> list[int]:
    """The closes whose counted rows are known and have checksums, but no digests yet; oldest first."""
    stored, later = tables.row_checksums, tables.later_digests
    query = select(stored.c.run_id).where(~exists().where(later.c.run_id == stored.c.run_id)).distinct()
    undone = set(connection.scalars(query))
    return [
        run.run_id
        for run in _closes_of_old_kind(connection)
        if run.run_id in undone and has_known_keys(connection, run)
    ]


def _closes_of_old_kind(connection: Connection) -> list[Run]:
    """The certified closes from before rows were counted by their keys, oldest first."""
    runs = tables.runs
    query = select_runs().where(
        runs.c.kind == "close", runs.c.status == "certified", runs.c.planned_at.is_(None)
    )  # fmt: skip
    return all_runs(connection, query.order_by(runs.c.run_id))


def _digest_anew(connection: Connection, run: Run) -> Fate | None:
    """What becomes of an old close; None where it has no rows."""
    if later_digests(connection, run):
        return Fate.digested_before
    if not has_known_keys(connection, run):
        return Fate.unknown_rows
    if chain_was_ended(connection, run.genesis_run_id):
        return Fate.ended
    stored = stored_checksums(connection, run)
    digests = digest_rows(connection, run)
    if not stored:
        return Fate.no_checksums if digests else None
    if stored != checksum_rows(connection, run):
        return Fate.differs
    rows = [{"run_id": run.run_id, **asdict(each)} for each in digests.values()]
    connection.execute(insert_or_ignore(tables.later_digests).on_conflict_do_nothing(), rows)  # two at once
    return Fate.digested
