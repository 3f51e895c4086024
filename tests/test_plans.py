"""What the heavy statements read: rows counted in their real plans, on books with a history."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import date, timedelta
from typing import Any

import psycopg
import pytest
from psycopg import sql
from sqlalchemy import URL, Connection, event, text

from ledger_db.close.cluster import first_foreign_record
from ledger_db.close.counting import count_piece, plan_pieces
from ledger_db.close.driver import count_rows
from ledger_db.close.opening import abandon_run, open_close
from ledger_db.close.runs import Run
from ledger_db.close.snapshots import ensure_partition, plan_key_ranges, write_snapshot_batch
from ledger_db.core.key_ranges import KeyRange
from ledger_db.history.balance_at import balance_at
from ledger_db.verification.drift import verify_batch
from ledger_db.verification.sweeps import collect_postings, open_verification, plan_balance_ranges
from tasks.close import calendar
from tests.testing.books import Books, Ledger, instant
from tests.testing.clusters import pretend_restored
from tests.testing.databases import database_of

BALANCES, DAYS, PER_DAY = 2_000, 60, 1_000
HOT_POSTINGS, QUIET = 20_000, 5_000
CLOSES, STRAGGLERS = 2_000, 30
FIRST_DAY = date(2026, 1, 1)
COLUMNS_OF_RUNS = (
    "SELECT column_name FROM information_schema.columns WHERE (table_schema, table_name) = ('ledger_eod', 'runs')"
)

Node = dict[str, Any]


def make_balances(connection: Connection, count: int) -> None:
    connection.execute(
        text(
            "INSERT INTO blnk.balances (balance_id, balance, credit_balance, debit_balance, currency, ledger_id) "
            "SELECT 'bln_' || n, 0, 0, 0, 'USD', 'general_ledger_id' FROM generate_series(1, :count) AS n"
        ),
        {"count": count},
    )


def make_transactions(connection: Connection, first: int, last: int, *, source: str, destination: str, at: str) -> None:
    """Rows numbered from first to last; the arguments are SQL over the number ``n``."""
    connection.execute(
        text(
            "INSERT INTO blnk.transactions (transaction_id, reference, source, destination, precise_amount, currency, "
            f"status, created_at) SELECT 'txn_' || n, 'ref_' || n, {source}, {destination}, n, 'USD', 'APPLIED', {at} "
            "FROM generate_series(CAST(:first AS bigint), CAST(:last AS bigint)) AS n"
        ),
        {"first": first, "last": last},
    )


def close(books: Books, day: date) -> Run:
    return books.close_day(day.isoformat(), batch_size=1_000)


@pytest.fixture(scope="module")
def grown(server_url: URL, template_name: str) -> Iterator[Books]:
    """2,000 balances, 1,000 transactions on each of 60 days; 59 of them closed in one go, the last one open.

    On the last day 20 rows arrive late.
    """
    with contextmanager(database_of)(server_url, template_name) as ledger:
        books = Books(ledger)
        spread = {"source": "'bln_' || 1 + n % 2000", "destination": "'bln_' || 1 + (n * 7 + 1) % 2000"}
        moment = "timestamp '2026-01-01' + make_interval(mins => CAST(n * 1440 / 1000 AS integer))"
        history = PER_DAY * (DAYS - 1)
        with books.engine.begin() as connection:
            make_balances(connection, BALANCES)
            make_transactions(connection, 0, history - 1, **spread, at=moment)
        close(books, FIRST_DAY + timedelta(days=DAYS - 2))
        with books.engine.begin() as connection:
            make_transactions(connection, history, history + PER_DAY - 1, **spread, at=moment)
            make_transactions(connection, 90_001, 90_020, **spread, at="timestamp '2026-01-20'")
        with books.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
            connection.execute(text("VACUUM ANALYZE blnk.balances"))
            connection.execute(text("VACUUM ANALYZE blnk.transactions"))
        yield books


@pytest.fixture(scope="module")
def opened(grown: Books) -> Run:
    """The last day's close, with its cut and partition."""
    day = FIRST_DAY + timedelta(days=DAYS - 1)
    with grown.engine.begin() as connection:
        run = open_close(connection, business_date=day, calendar=calendar(), now=calendar().closes_at(day))
        ensure_partition(connection, day)
    return run


def plan_of(ledger: Ledger, call: Callable[[Connection], object], marker: str, *, generic: bool = False) -> list[Node]:
    """The nodes of the plan of the statement with the marker that a call runs, with real row counts.

    ``generic``: planned without knowing the values, as a prepared statement is after a while. Nothing is kept.
    """
    caught: list[tuple[str, Any]] = []
    with ledger.engine.connect() as connection:

        def catch(_c: object, _cursor: object, statement: str, parameters: Any, *_: object) -> None:
            if marker in statement:
                caught.append((statement, parameters))

        event.listen(connection, "before_cursor_execute", catch)
        call(connection)
        connection.rollback()
    ((statement, parameters),) = caught
    with ledger.engine.connect() as connection:
        if "write_snapshot_batch" in getattr(call, "__name__", ""):
            connection.execute(text("SET LOCAL enable_nestloop = off"))
        if generic:
            names: list[str] = []

            def number(match: re.Match[str]) -> str:
                if match.group(1) not in names:
                    names.append(match.group(1))
                return f"${names.index(match.group(1)) + 1}"

            numbered = re.sub(r"%\((\w+)\)s(?:::\w+)?", number, statement)
            connection.exec_driver_sql("SET LOCAL plan_cache_mode = force_generic_plan")
            connection.exec_driver_sql(f"PREPARE caught AS {numbered}".replace("%", "%%"))
            driver: psycopg.Connection[Any] = connection.connection.driver_connection  # type: ignore[assignment]
            values = sql.SQL(", ").join([sql.Literal(parameters[name]) for name in names])
            row: Any = driver.execute(
                sql.SQL("EXPLAIN (ANALYZE, FORMAT JSON) EXECUTE caught ({})").format(values)
            ).fetchone()
            connection.exec_driver_sql("DEALLOCATE caught")
        else:
            row = connection.exec_driver_sql(f"EXPLAIN (ANALYZE, FORMAT JSON) {statement}", parameters).one()
        root = row[0][0]["Plan"]
        connection.rollback()
    nodes: list[Node] = []

    def walk(node: Node) -> None:
        nodes.append(node)
        for below in node.get("Plans", []):
            walk(below)

    walk(root)
    return nodes


def scans(nodes: list[Node], table: str) -> list[Node]:
    """The nodes that read a table, or one of its partitions; a bitmap's indexes count with its heap."""
    return [node for node in nodes if str(node.get("Relation Name", "")).startswith(table)]


def touched(nodes: list[Node]) -> int:
    """Rows that scans looked at, kept or not."""
    return sum(
        round(
            (node["Actual Rows"] + node.get("Rows Removed by Filter", 0) + node.get("Rows Removed by Index Recheck", 0))
            * node["Actual Loops"]
        )
        for node in nodes
    )


def assert_reads_by_index(nodes: list[Node], table: str) -> None:
    kinds = {node["Node Type"] for node in scans(nodes, table)}
    assert kinds, f"{table} is not read at all"
    assert kinds <= {"Index Scan", "Index Only Scan", "Bitmap Heap Scan"}, kinds


@pytest.fixture(scope="module")
def planning(grown: Books, opened: Run) -> list[list[Node]]:
    """The plans of planning the last day: of its older keys, and of its new ones as one piece and as sixteen.

    After it, the day is planned, as one.
    """

    def plan(connection: Connection, piece_size: int = 10 * PER_DAY) -> object:
        return plan_pieces(connection, opened.run_id, piece_size=piece_size)

    nodes = [plan_of(grown.ledger, plan, marker) for marker in ("straggler", "last_rows AS")]
    nodes.append(plan_of(grown.ledger, lambda c: plan(c, PER_DAY // 16), "last_rows AS"))
    with grown.engine.begin() as connection:
        plan(connection)
    return nodes


@pytest.fixture(scope="module")
def counting(grown: Books, opened: Run, planning: list[list[Node]]) -> list[Node]:
    """The plan of counting the last day, which is one piece; after it, the day is counted."""
    del planning
    nodes = plan_of(grown.ledger, lambda c: count_piece(c, opened.run_id, 1), "written_activity")
    count_rows(grown.engine, opened.run_id)
    return nodes


def test_planning_pieces_reads_the_day_not_the_history(planning: list[list[Node]]) -> None:
    for nodes in planning:
        assert_reads_by_index(nodes, "transactions")
        assert touched(scans(nodes, "transactions")) <= 2 * (PER_DAY + 20)  # counted, and divided


def test_counting_looks_at_each_row_of_the_day_once_and_at_no_other(counting: list[Node]) -> None:
    assert_reads_by_index(counting, "transactions")
    read = touched(scans(counting, "transactions"))
    assert PER_DAY <= read <= PER_DAY + 2 * 20, read


def test_counting_older_keys_looks_up_each_span_however_many_there_are(books: Books) -> None:
    """As a join, the spans of a piece made it read the whole ledger for each block of keys."""
    pending = 3 * PER_DAY
    with books.engine.begin() as connection:
        make_balances(connection, BALANCES)
        make_transactions(
            connection, 0, 6 * PER_DAY - 1, source="'bln_' || 1 + n % 2000", destination="'bln_' || 1 + (n + 7) % 2000",
            at=f"CASE WHEN n < {pending} THEN timestamp '2026-01-02 09:00' ELSE timestamp '2026-01-01 09:00' END",
        )  # fmt: skip
        connection.execute(text("SET LOCAL session_replication_role = replica"))
        connection.execute(text("DELETE FROM blnk.transactions WHERE id % 3 = 0"))
    close(books, FIRST_DAY)
    day = FIRST_DAY + timedelta(days=1)
    with books.engine.begin() as connection:
        run = open_close(connection, business_date=day, calendar=calendar(), now=calendar().closes_at(day))
        (piece,) = plan_pieces(connection, run.run_id, piece_size=10 * PER_DAY)
    assert piece.work == "older"
    nodes = plan_of(books.ledger, lambda c: count_piece(c, run.run_id, piece.piece), "written_activity")
    assert_reads_by_index(nodes, "transactions")
    assert pending * 2 // 3 <= touched(scans(nodes, "transactions")) <= pending * 2 // 3 + 40


@pytest.fixture(scope="module")
def many_closes(server_url: URL, template_name: str) -> Iterator[Books]:
    """2,000 closes, each of a block of keys of its own but for the last one; rows that came since, counted ones too."""
    with contextmanager(database_of)(server_url, template_name) as ledger:
        books = Books(ledger)
        with books.engine.begin() as connection:
            make_balances(connection, 10)
            make_transactions(connection, 1, 1, source="'bln_1'", destination="'bln_2'", at="timestamp '2026-01-01'")
        first = close(books, FIRST_DAY)
        with books.engine.begin() as connection:
            connection.execute(text("SET LOCAL session_replication_role = replica"))
            columns = list(connection.scalars(text(COLUMNS_OF_RUNS)))
            ours = {
                "run_id": "run_id + n", "business_date": "business_date + n", "base_run_id": "run_id + n - 1",
                "opens_at": "opens_at + make_interval(days => n)", "closes_at": "closes_at + make_interval(days => n)",
                "max_transaction_key": "8192 * CAST(n AS bigint) + 8191", "pending_from_run_id": "NULL",
            }  # fmt: skip
            connection.execute(
                text(
                    f"INSERT INTO ledger_eod.runs ({', '.join(columns)}) OVERRIDING SYSTEM VALUE "
                    f"SELECT {', '.join(ours.get(name, name) for name in columns)} "
                    f"FROM ledger_eod.runs, generate_series(1, {CLOSES - 1}) AS n"
                )
            )
            connection.execute(
                text(
                    "INSERT INTO ledger_eod.run_keys (run_id, key_set, piece, effective_date, block, keys) "
                    f"SELECT {first.run_id} + n, 'counted', 1, date '{FIRST_DAY}' + n, n, "
                    "int8multirange(int8range(8192 * CAST(n AS bigint), 8192 * CAST(n AS bigint) + 8191)) "
                    f"FROM generate_series(1, {CLOSES - 1}) AS n"
                )
            )
            for key in (5, 8191):
                connection.execute(
                    text(
                        "INSERT INTO blnk.transactions (id, transaction_id, source, destination, precise_amount, "
                        f"currency, status, created_at) SELECT 8192 * n + {key}, 'txn_since_{key}_' || n, 'bln_1', "
                        f"'bln_2', 1, 'USD', 'APPLIED', '2026-01-02' FROM generate_series(1, {STRAGGLERS}) AS n"
                    )
                )
            connection.execute(text("SELECT setval(pg_get_serial_sequence('ledger_eod.runs', 'run_id'), 10000)"))
        with books.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
            for table in ("ledger_eod.run_keys", "ledger_eod.runs", "blnk.transactions"):
                connection.execute(text(f"VACUUM ANALYZE {table}"))
        yield books


@pytest.mark.parametrize("generic", [False, True])
def test_who_counted_a_key_is_one_probe_of_the_keys_however_many_closes_there_are(
    many_closes: Books, generic: bool
) -> None:
    day = FIRST_DAY + timedelta(days=CLOSES)
    with many_closes.engine.begin() as connection:
        run = open_close(connection, business_date=day, calendar=calendar(), now=calendar().closes_at(day))
    nodes = plan_of(
        many_closes.ledger, lambda c: plan_pieces(c, run.run_id, piece_size=PER_DAY), "AS straggler", generic=generic
    )
    probes, runs = (
        [node for node in scans(nodes, table) if node["Alias"].startswith(alias) and node["Actual Loops"] > 0]
        for table, alias in (("run_keys", "counted"), ("runs", "counting"))
    )
    assert {(node["Node Type"], node["Index Name"]) for node in probes} == {("Index Scan", "ix_run_keys_block")}
    for node in probes:
        assert re.search(r"block = .*key_set = ", node["Index Cond"])
    # a transaction that another test had open at the base's cut makes a few more rows candidates
    assert 2 * STRAGGLERS <= sum(node["Actual Loops"] for node in probes) <= 3 * STRAGGLERS
    assert touched(probes) <= 3 * STRAGGLERS  # of each block one set
    assert touched(runs) <= 3 * STRAGGLERS
    with many_closes.engine.begin() as connection:
        assert sum(piece.work == "older" for piece in plan_pieces(connection, run.run_id, piece_size=8192)) == 1
    ((keys,),) = many_closes.rows(
        "SELECT sum(upper(span) - lower(span)) FROM ledger_eod.run_keys, unnest(keys) AS span WHERE run_id = :run",
        run=run.run_id,
    )
    assert keys == STRAGGLERS
    with many_closes.engine.begin() as connection:
        abandon_run(connection, run.run_id)


@pytest.fixture(scope="module")
def copied(server_url: URL, template_name: str) -> Iterator[Books]:
    """A restored copy whose ten days have ids far above this cluster's, closed once here; then one more day."""
    history = 10 * PER_DAY
    spread = {"source": "'bln_' || 1 + n % 2000", "destination": "'bln_' || 1 + (n + 7) % 2000"}
    with contextmanager(database_of)(server_url, template_name) as ledger:
        books = Books(ledger)
        with books.engine.begin() as connection:
            make_balances(connection, BALANCES)
            make_transactions(connection, 1, history, **spread, at="timestamp '2026-01-01 09:00'")
        close(books, FIRST_DAY)
        pretend_restored(books)
        close(books, FIRST_DAY + timedelta(days=1))
        with books.engine.begin() as connection:
            make_transactions(connection, history + 1, history + PER_DAY, **spread, at="timestamp '2026-01-03 09:00'")
        with books.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
            connection.execute(text("VACUUM ANALYZE blnk.transactions"))
        yield books


def test_after_a_restore_a_night_reads_the_day_not_the_history(copied: Books) -> None:
    """However far above this cluster's the ids of the old rows are."""
    day = FIRST_DAY + timedelta(days=2)
    with copied.engine.begin() as connection:
        run = open_close(connection, business_date=day, calendar=calendar(), now=calendar().closes_at(day))

    def plan(connection: Connection) -> object:
        return plan_pieces(connection, run.run_id, piece_size=10 * PER_DAY)

    for marker in ("straggler", "last_rows AS"):
        nodes = plan_of(copied.ledger, plan, marker)
        assert_reads_by_index(nodes, "transactions")
        assert touched(scans(nodes, "transactions")) <= 2 * PER_DAY
    with copied.engine.begin() as connection:
        (piece,) = plan_pieces(connection, run.run_id, piece_size=10 * PER_DAY)
    nodes = plan_of(copied.ledger, lambda c: count_piece(c, run.run_id, piece.piece), "written_activity")
    assert_reads_by_index(nodes, "transactions")
    assert PER_DAY <= touched(scans(nodes, "transactions")) <= PER_DAY + 40


def test_after_a_restore_looking_for_foreign_records_passes_over_what_the_cluster_began_with(copied: Books) -> None:
    nodes = plan_of(copied.ledger, first_foreign_record, "pg_snapshot_xmax")
    assert_reads_by_index(nodes, "transactions")
    assert touched(scans(nodes, "transactions")) <= PER_DAY


def test_planning_and_writing_batches_read_only_their_ranges(grown: Books, opened: Run, counting: list[Node]) -> None:
    size = 200
    with grown.engine.begin() as connection:
        ranges = plan_key_ranges(connection, opened.run_id, batch_size=size)
    assert [keys.balance_count for keys in ranges] == [size] * (BALANCES // size)

    def write_snapshot_batch_of(keys: KeyRange) -> Callable[[Connection], object]:
        def write_snapshot_batch_(connection: Connection) -> object:
            return write_snapshot_batch(connection, opened.run_id, keys)

        return write_snapshot_batch_

    for keys in (ranges[0], ranges[4], ranges[-1]):
        nodes = plan_of(grown.ledger, write_snapshot_batch_of(keys), "INSERT INTO ledger_eod.balance_snapshots")
        for table in ("captured_balances", "activity", "balance_snapshots"):
            read = [node for node in scans(nodes, table) if node["Node Type"] != "ModifyTable"]
            assert {node["Node Type"] for node in read} <= {"Index Scan", "Index Only Scan", "Bitmap Heap Scan"}, read
            # activity: a balance has one row a date it moved on, late ones included
            assert touched(read) <= size * (3 if table == "activity" else 1), (table, touched(read))
        assert scans(nodes, "transactions") == []


@pytest.mark.parametrize("generic", [False, True])
@pytest.mark.parametrize("at", ["2026-03-01", "2026-03-01 12:00", "2026-03-02"])
def test_a_balance_at_an_instant_reads_that_balance_since_its_anchor(
    grown: Books, opened: Run, at: str, generic: bool
) -> None:
    nodes = plan_of(
        grown.ledger, lambda c: balance_at(c, "bln_1000", instant(at)), "AS inflight_debit_balance\nFROM parts",
        generic=generic,
    )  # fmt: skip
    assert_reads_by_index(nodes, "transactions")
    ((own,),) = grown.rows("SELECT count(*) FROM blnk.transactions WHERE 'bln_1000' IN (source, destination)")
    assert own > 40
    assert touched(scans(nodes, "transactions")) <= 8  # of the last days, not of its 60 days
    for table in ("balance_snapshots", "activity", "runs"):
        assert touched(scans(nodes, table)) <= 8, table


@pytest.mark.parametrize("generic", [False, True])
def test_the_day_of_a_balance_comes_by_its_indexes(grown: Books, opened: Run, generic: bool) -> None:
    nodes = plan_of(
        grown.ledger, lambda c: balance_at(c, "bln_1000", instant("2026-03-02")),
        "AS inflight_debit_balance\nFROM parts", generic=generic,
    )  # fmt: skip
    assert_reads_by_index(nodes, "transactions")
    used = {node["Index Name"] for node in nodes if "Index Name" in node}
    for side in ("source", "destination"):
        assert f"ix_transactions_{side}_effective_at" in used
        assert f"ix_transactions_{side}_recorded_xid" in used  # its own, else it walks the balance


def test_a_balance_from_source_reads_its_own_postings_only(grown: Books) -> None:
    nodes = plan_of(
        grown.ledger, lambda c: balance_at(c, "bln_1000", instant("2026-03-02"), from_source=True),
        "FROM known_postings",
    )  # fmt: skip
    assert_reads_by_index(nodes, "transactions")
    ((own,),) = grown.rows("SELECT count(*) FROM blnk.transactions WHERE 'bln_1000' IN (source, destination)")
    assert touched(scans(nodes, "transactions")) <= own


def test_a_hot_balance_makes_no_batch_larger_than_its_share(books: Books) -> None:
    """20,000 postings on one balance among 5,000 quiet ones: after collecting, it is a row like any other."""
    with books.engine.begin() as connection:
        make_balances(connection, QUIET + 1)
        make_transactions(
            connection, 1, HOT_POSTINGS, source=f"'bln_{QUIET + 1}'", destination=f"'bln_' || 1 + n % {QUIET}",
            at="timestamp '2026-01-31 09:00'",
        )  # fmt: skip
    run = books.open_day("2026-01-31")
    count_rows(books.engine, run.run_id)
    with books.engine.begin() as connection:
        ensure_partition(connection, run.business_date)
        ranges = plan_key_ranges(connection, run.run_id, batch_size=500)
    assert books.rows("SELECT count(*) <= :most FROM ledger_eod.activity", most=QUIET + 1) == [(True,)]
    ((largest,),) = books.rows("SELECT max(posting_count) FROM ledger_eod.activity")
    assert largest == HOT_POSTINGS
    reads = []
    for keys in ranges:

        def write_snapshot_batch_(connection: Connection, keys: KeyRange = keys) -> object:
            return write_snapshot_batch(connection, run.run_id, keys)

        nodes = plan_of(books.ledger, write_snapshot_batch_, "INSERT INTO ledger_eod.balance_snapshots")
        assert scans(nodes, "transactions") == []
        reads.append(sum(touched(scans(nodes, table)) for table in ("captured_balances", "activity")))
    assert max(reads) <= 2 * 500
    assert len(reads) == 11


def test_verifying_since_the_close_reads_the_day_not_the_history(grown: Books) -> None:
    """Of 60 days the last is not certified: sums and transaction checks read that day and what is late, by index."""
    with grown.engine.begin() as connection:
        opened = open_verification(connection, scope="since-close")
    verification_id = opened.verification_id
    nodes = plan_of(
        grown.ledger, lambda c: collect_postings(c, verification_id), "INSERT INTO ledger_eod.verification_sums"
    )
    assert_reads_by_index(nodes, "transactions")
    read = touched(scans(nodes, "transactions"))
    assert 2 * PER_DAY <= read <= 2 * (2 * PER_DAY + 2 * 20), read
    with grown.engine.begin() as connection:
        collect_postings(connection, verification_id)
        keys, *_ = plan_balance_ranges(connection, verification_id, batch_size=200)
    nodes = plan_of(grown.ledger, lambda c: verify_batch(c, verification_id, keys), "witnesses AS")
    assert touched(scans(nodes, "transactions")) <= 8  # nothing was recorded since the cut
    for table in ("balances", "balance_snapshots", "verification_sums"):
        assert touched(scans(nodes, table)) <= 200, table
