"""What can go wrong, in two families: transient (try again) and facts of the ledger (a person decides).

Transience is decided by SQLSTATE, never by message text, which PostgreSQL translates.
"""

from sqlalchemy.exc import DBAPIError, InterfaceError, OperationalError

#: SQLSTATEs after which the same statement may succeed: https://www.postgresql.org/docs/current/errcodes-appendix.html
TRANSIENT_SQLSTATES = frozenset(
    {
        "25P03",  # idle_in_transaction_session_timeout
        "40001",  # serialization_failure
        "40P01",  # deadlock_detected
        "53300",  # too_many_connections
        "55006",  # object_in_use
        "55P03",  # lock_not_available: lock_timeout
        "57P01",  # admin_shutdown
        "57P02",  # crash_shutdown
        "57P03",  # cannot_connect_now
        "57P05",  # idle_session_timeout
    }
)
CONNECTION_EXCEPTION_CLASS = "08"


class LedgerError(Exception):
    """A fact of the ledger or its configuration; the message is one line that says what to do next."""


class ConfigurationError(LedgerError):
    """A setting is missing or wrong; nothing was changed."""


class NotMigrated(LedgerError):
    """The database lacks this project's schema, or has an older or newer one."""


class PeriodNotEnded(LedgerError):
    """The business date has not reached its ``closes_at``."""


class OutOfOrder(LedgerError):
    """A close would be opened before an earlier one is certified, or behind the newest certified one."""


class ForeignRecords(LedgerError):
    """Transactions carry ids of another cluster's database transactions: no cut can tell when they were recorded."""


class RunNotOpen(LedgerError):
    """The run is certified already, or was abandoned: it takes no more rows."""


class RunAtWork(LedgerError):
    """Another process holds the run at this moment."""


class BatchFailed(LedgerError):
    """Some key ranges of a run could not be written; the others are kept.

    ``transient``: another try may write them. ``written``: how many rows were written all the same.
    """

    def __init__(self, message: str, *, transient: bool, written: int = 0) -> None:
        super().__init__(message)
        self.transient = transient
        self.written = written

    def __reduce__(self) -> tuple[object, ...]:
        """Pickled by keyword, as Prefect moves exceptions between threads and processes."""
        return (_batch_failed, (str(self), self.transient, self.written))


def _batch_failed(message: str, transient: bool, written: int) -> BatchFailed:
    return BatchFailed(message, transient=transient, written=written)


class NotCertified(LedgerError):
    """The run's figures do not prove; it stays open and can be resumed."""


class UnknownBalance(LedgerError):
    """No balance has this id."""


class UnknownRun(LedgerError):
    """No certified run answers to this id or date."""


class UnknowableAt(LedgerError):
    """The knowledge asked for cannot be reproduced, for instance because it was gathered on another cluster."""


class NothingToVerify(LedgerError):
    """There is no close of this cluster to verify from, or no balance answers to the restriction."""


class VerificationNotOpen(LedgerError):
    """The verification is finished or abandoned: it takes no more verdicts."""


class DeclarationRefused(LedgerError):
    """An opening balance that cannot be declared; nothing was stored."""


class ReconstructionRefused(LedgerError):
    """A reconstruction that cannot be done as asked; no balance was touched."""


class ApprovalRefused(LedgerError):
    """Whoever approves may not, or what they approve is not what would be done; nothing was corrected."""


class StaleFigures(LedgerError):
    """The balance row has moved on since it was read: nothing was written."""


class BookingRefused(LedgerError):
    """A transaction or balance that would break the books; nothing was recorded."""


class BadImport(LedgerError):
    """Rows of an import file that cannot be booked; nothing was loaded."""


def sqlstate_of(error: BaseException) -> str | None:
    """The SQLSTATE behind a SQLAlchemy or psycopg error, or None (a lost connection may have none)."""
    original = error.orig if isinstance(error, DBAPIError) else error
    return getattr(original, "sqlstate", None)


def first_line(error: BaseException) -> str:
    """What an error says, in one line and without the statement that met it."""
    original = error.orig if isinstance(error, DBAPIError) and error.orig is not None else error
    return (str(original).strip().splitlines() or [type(original).__name__])[0]


def is_transient(error: BaseException) -> bool:
    """Whether the same call may succeed if it is tried again a little later."""
    if isinstance(error, BatchFailed):
        return error.transient
    if not isinstance(error, DBAPIError):
        return False
    state = sqlstate_of(error)
    if state is not None:
        return state in TRANSIENT_SQLSTATES or state.startswith(CONNECTION_EXCEPTION_CLASS)
    return error.connection_invalidated or isinstance(error, OperationalError | InterfaceError)
