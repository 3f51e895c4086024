"""What can go wrong: facts of the ledger, in five families, and which errors of the database are transient.

Transience is decided by SQLSTATE, never by message text, which PostgreSQL translates. No message names a command: what
to do next is a hint, which each surface words for its own users.
"""

from enum import StrEnum
from typing import ClassVar

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


class Hint(StrEnum):
    """What a person can do next. Only named here: the surface that shows an error (command line, form) words it."""

    list_balances = "list_balances"
    list_discrepancies = "list_discrepancies"
    list_runs = "list_runs"
    migrate = "migrate"
    name_the_currency = "name_the_currency"
    name_the_ledger = "name_the_ledger"
    choose_first_close = "choose_first_close"
    confirm_first_close = "confirm_first_close"
    close_missing_dates = "close_missing_dates"
    close_a_date_first = "close_a_date_first"
    take_interim = "take_interim"
    ask_history = "ask_history"
    run_again = "run_again"
    verify_checksums = "verify_checksums"
    verify_first = "verify_first"
    start_verification = "start_verification"
    propose_again = "propose_again"
    show_proposal = "show_proposal"
    begin_new_chain = "begin_new_chain"
    show_new_chain = "show_new_chain"
    approve_new_chain = "approve_new_chain"


class LedgerError(Exception):
    """A fact of the ledger, or of how it was asked. The message is one line and states the fact; ``hint`` is what next.

    Every error but a failed job is of one of five families; exit code and HTTP status belong to the family.
    """

    exit_code: ClassVar[int] = 1
    http_status: ClassVar[int] = 500

    def __init__(self, message: str, *, hint: Hint | None = None) -> None:
        super().__init__(message)
        self.hint = hint


class NotFound(LedgerError):
    """What was named is not there."""

    http_status = 404


class Refused(LedgerError):
    """A fact of the ledger says no; nothing was changed."""

    http_status = 409


class NotYet(LedgerError):
    """In time, or in its turn, it may be done."""

    http_status = 425


class Misused(LedgerError):
    """Wrong input or configuration; nothing was changed."""

    exit_code = 2
    http_status = 400


class Unavailable(LedgerError):
    """It may work a little later, without anything being done about it."""

    exit_code = 3
    http_status = 503


class ConfigurationError(Misused):
    """A setting is missing or wrong, or what it names cannot be reached."""


class NotMigrated(Misused):
    """The database lacks this project's schema, or has an older or newer one."""


class UnknownBalance(NotFound):
    """No balance has this id or indicator."""


class NothingSelected(NotFound):
    """No balance is of the ledger, the currency or the kind that was asked for."""


class UnknownTransaction(NotFound):
    """No transaction has this id."""


class UnknownLedger(NotFound):
    """No ledger has this id."""


class UnknownIdentity(NotFound):
    """No identity, an owner of balances, has this id."""


class UnknownRun(NotFound):
    """No certified run has this id or date."""


class UnknownVerification(NotFound):
    """No verification has this id."""


class UnknownReconstruction(NotFound):
    """No reconstruction has this id, or the balance is not part of it."""


class UnknownProposal(NotFound):
    """No proposal has figures with this hash."""


class PeriodNotEnded(NotYet):
    """The business date has not reached its ``closes_at``."""


class OutOfOrder(NotYet):
    """A close would be opened before an earlier one is certified, or behind the newest certified one."""


class FirstCloseUndecided(NotYet):
    """A ledger with a history has no close yet, and nobody has said where its closes begin, or confirmed it."""


class NotApproved(NotYet):
    """The run begins a new chain, and nobody has approved it yet; it stays open."""


class NothingToPrepare(NotYet):
    """The date in progress does not follow the newest close, or a close is at work."""


class NothingToVerify(NotYet):
    """There is no certified close to verify from."""


class ForeignRecords(Refused):
    """Transactions carry ids of another cluster's database transactions: no cut can say when they were recorded."""


class ChainDiffers(Refused):
    """The newest close is not the sum of the rows that its chain counted: no close is based on it."""


class FirstCloseRefused(Refused):
    """Closes have begun, later than was asked for: none can be put before the first."""


class TableMadeAnew(Refused):
    """Keys of the ledger's transactions stand for other rows than those that a close counted."""


class NewChainRefused(Refused):
    """A new chain of closes that cannot be begun as asked; nothing was stored."""


class RunNotOpen(Refused):
    """The run is certified already, or was abandoned: it takes no more rows."""


class NotCertified(Refused):
    """The run's figures do not prove; it stays open and can be resumed."""


class UnknowableAt(Refused):
    """The knowledge asked for cannot be reproduced, for instance because it was gathered on another cluster."""


class VerificationNotOpen(Refused):
    """The verification is finished or abandoned: it takes no more findings."""


class DeclarationRefused(Refused):
    """An opening balance that cannot be declared; nothing was stored."""


class ReconstructionRefused(Refused):
    """A reconstruction that cannot be done as asked; no balance was touched."""


class ApprovalRefused(Refused):
    """Whoever approves may not, or what they approve is not what would be done; nothing was corrected."""


class StaleFigures(Refused):
    """The balance row has moved on since it was read: nothing was written."""


class BookingRefused(Refused):
    """A transaction or balance that would break the books; nothing was recorded."""


class BadImport(Refused):
    """Rows of an import file that cannot be booked; nothing was loaded."""


class RunAtWork(Unavailable):
    """Another process is at work on the same thing at this moment."""


class BatchFailed(LedgerError):
    """Some parts of a job failed; the others are kept.

    ``transient``: another try may do them. ``written``: how many rows were written all the same.
    """

    def __init__(self, message: str, *, transient: bool, written: int = 0, hint: Hint | None = None) -> None:
        super().__init__(message, hint=hint)
        self.transient = transient
        self.written = written

    def __reduce__(self) -> tuple[object, ...]:
        """Pickled by keyword, as Prefect moves exceptions between threads and processes."""
        return (_batch_failed, (str(self), self.transient, self.written, self.hint))


def _batch_failed(message: str, transient: bool, written: int, hint: Hint | None) -> BatchFailed:
    return BatchFailed(message, transient=transient, written=written, hint=hint)


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
