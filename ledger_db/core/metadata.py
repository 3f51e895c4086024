"""What all tables share: two schemas, names of constraints, money, and PostgreSQL's types for transactions and cuts.

The reference ledger's tables are in schema ``blnk``, this project's own in ``ledger_eod``. Money is ``numeric`` without
a limit, in minor units. Instants are ``timestamptz`` in our own tables; the reference's naive timestamps on
transactions are UTC.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from sqlalchemy import Column, MetaData, Numeric, text
from sqlalchemy.types import UserDefinedType

LEDGER_SCHEMA = "blnk"
EOD_SCHEMA = "ledger_eod"

metadata = MetaData(
    naming_convention={
        "pk": "pk_%(table_name)s",
        "fk": "fk_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "ck": "ck_%(table_name)s_%(constraint_name)s",
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
    }
)

Money = Numeric


class Xid8(UserDefinedType[str]):
    """A 64-bit transaction id that never wraps; text in Python."""

    cache_ok = True

    def get_col_spec(self, **_: Any) -> str:
        """The type's SQL name."""
        return "xid8"


class PgSnapshot(UserDefinedType[str]):
    """The transactions that were visible at an instant; text ``xmin:xmax:running,…`` in Python."""

    cache_ok = True

    def get_col_spec(self, **_: Any) -> str:
        """The type's SQL name."""
        return "pg_snapshot"


def money_columns(
    names: Iterable[str], *, nullable: bool = False, server_default: str | None = None
) -> list[Column[Any]]:
    """A column of minor units for each name; ``server_default`` is SQL."""
    default = None if server_default is None else text(server_default)
    return [Column(name, Money, nullable=nullable, server_default=default) for name in names]
