"""The ledger's table of transactions made anew by hand, without its ids."""

from __future__ import annotations

from tests.testing.books import Books

#: The application's columns: all but the id, and but what this project added.
COLUMNS = """
    SELECT string_agg(quote_ident(column_name), ', ' ORDER BY ordinal_position)
    FROM information_schema.columns
    WHERE table_schema = 'blnk' AND table_name = 'transactions' AND column_name NOT IN ('id', 'recorded_xid')
"""


def make_anew(books: Books, *, order: str, keys_start_at: str = "max(id) + 1") -> None:
    """What a migration by hand does: the rows copied out and in again, by the columns that the application knows."""
    ((columns,),) = books.rows(COLUMNS)
    books.execute("CREATE TABLE public.kept AS SELECT * FROM blnk.transactions")
    ((start,),) = books.rows(f"SELECT {keys_start_at} FROM blnk.transactions")
    with_own_ids = "SET LOCAL session_replication_role = replica"
    with books.engine.begin() as connection:
        connection.exec_driver_sql(with_own_ids)
        connection.exec_driver_sql("DELETE FROM blnk.transactions")
        connection.exec_driver_sql(f"ALTER SEQUENCE blnk.transactions_id_seq RESTART WITH {start}")
        connection.exec_driver_sql(
            f"INSERT INTO blnk.transactions ({columns}) SELECT {columns} FROM public.kept ORDER BY {order}"
        )


def put_back(books: Books) -> None:
    """The rows with the ids that they had."""
    with books.engine.begin() as connection:
        connection.exec_driver_sql("SET LOCAL session_replication_role = replica")
        connection.exec_driver_sql("DELETE FROM blnk.transactions")
        connection.exec_driver_sql("INSERT INTO blnk.transactions SELECT * FROM public.kept")
