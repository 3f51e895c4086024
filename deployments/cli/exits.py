"""How a command ends: its exit code, one line on standard error for an error, and what a signal does."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable
from enum import IntEnum

import typer
from sqlalchemy.exc import DBAPIError

from deployments.hints import with_hint
from ledger_db.errors import BadImport, LedgerError, first_line


class ExitCode(IntEnum):
    """What the caller of a command learns. The code of an error is the one of its family (``ledger_db.errors``)."""

    DONE = 0
    FAILED = 1
    MISUSED = 2
    AT_WORK = 3
    NEEDS_APPROVAL = 4
    INTERRUPTED = 130
    TERMINATED = 143


class Debugging:
    """Whether an error is shown with its traceback: ``ledger-eod --debug``."""

    on = False


debugging = Debugging()


def guarded(action: Callable[[], int | None]) -> int:
    """Do something for a user at a terminal; returns the exit code. An error is one line on standard error."""
    try:
        code = action()
        sys.stdout.flush()
        return _interrupted(code) if code == ExitCode.INTERRUPTED else int(code or ExitCode.DONE)  # Ctrl-C, by typer
    except BrokenPipeError:  # the reader, head for instance, closed the pipe
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return ExitCode.DONE
    except (KeyboardInterrupt, typer.Abort):
        return _interrupted(ExitCode.INTERRUPTED)
    except SystemExit as end:
        if end.code != ExitCode.TERMINATED:
            raise
        return _interrupted(ExitCode.TERMINATED)
    except Exception as error:
        if debugging.on:
            raise
        bad_rows = str(error).splitlines()[1:] if isinstance(error, BadImport) else []
        sys.stderr.write("\n".join([f"ledger-eod: {_one_line(error)}", *bad_rows]) + "\n")
        return _exit_code(error)


def _interrupted(code: int) -> int:
    sys.stderr.write("ledger-eod: interrupted; what is certified stays, the next call goes on from there\n")
    return code


def _one_line(error: Exception) -> str:
    usage = _usage_of(error)
    if usage is not None:
        message = usage()
    elif isinstance(error, DBAPIError):
        message = f"the database refused: {first_line(error)}"
    elif isinstance(error, BadImport):
        message = first_line(error)
    elif isinstance(error, LedgerError):
        message = with_hint(error)
    else:
        message = f"{type(error).__name__}: {first_line(error)}; ledger-eod --debug COMMAND shows where"
    return " ".join(message.split())


def _exit_code(error: Exception) -> int:
    if isinstance(error, LedgerError):
        return error.exit_code
    return ExitCode.FAILED if _usage_of(error) is None else ExitCode.MISUSED


def _usage_of(error: Exception) -> Callable[[], str] | None:
    """The message of an error of usage, which typer raises; None for any other error."""
    return getattr(error, "format_message", None)


def _terminate(*_: object) -> None:
    raise SystemExit(int(ExitCode.TERMINATED))


def exit_on_sigterm() -> None:
    """Let SIGTERM and a closed terminal end this process like Ctrl-C: the servers it started are stopped."""
    for ending in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(ending, _terminate)
