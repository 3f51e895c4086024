"""The statements that are too long to read inside Python. Each is a ``.sql`` file in the package of the function that
runs it, named after that function.

A statement's name is ``package.file``. In a file, the line ``-- include NAME`` stands for the text of another file of
the same package, and ``-- include PACKAGE.NAME`` for a file that packages share. An included file may have placeholders
in braces. The include then gives a value for each of them, one on a line, or all on one line between semicolons::

    -- include close.in_cut(xid: t.recorded_xid; cut: CAST(:cut AS pg_snapshot))

Text is included where a view could be used, because a view would prevent the ledger's own application from altering the
columns that the view reads.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Final

from sqlalchemy import TextClause, text

_PACKAGES: Final = Path(__file__).resolve().parent.parent
_INCLUDE: Final = re.compile(
    r"^-- include (?P<name>[a-z_]+(?:\.[a-z_]+)?)"
    r"(?:\((?P<inline>[^\n]+)\)|\((?P<lines>(?:\n-- {4}[^\n]+)+)\n-- \))?$",
    re.MULTILINE,
)
_PLACEHOLDER: Final = re.compile(r"\{([a-z_]+)\}")


@lru_cache
def load(name: str, variants: tuple[tuple[str, str], ...] = ()) -> TextClause:
    """A statement with its includes. ``variants``: pairs of an included name and the name to include instead."""
    return text(source(name, variants))


@lru_cache
def source(name: str, variants: tuple[tuple[str, str], ...] = ()) -> str:
    """A statement's text with its includes.

    Raises:
        ValueError: an include gives a placeholder that the file does not have, or omits one that it has.
    """
    return _rendered(name, dict(variants), {})


@lru_cache
def includes(name: str) -> frozenset[str]:
    """The full names of all files that a statement includes, directly or through another include."""
    return frozenset(_included(name))


def _included(name: str) -> Iterator[str]:
    for match in _INCLUDE.finditer(_read(name)):
        included = _full_name(match["name"], name)
        yield included
        if _path(included).is_file():  # a name that variants replace may have no file
            yield from _included(included)


def _rendered(name: str, variants: Mapping[str, str], arguments: Mapping[str, str]) -> str:
    written = _read(name)
    wanted = set(_PLACEHOLDER.findall(written))
    if wanted != set(arguments):
        raise ValueError(f"{name} takes {sorted(wanted) or 'nothing'}, and is given {sorted(arguments) or 'nothing'}")

    def include(match: re.Match[str]) -> str:
        included = _full_name(match["name"], name)
        return _rendered(variants.get(included, included), variants, _arguments(match)).strip()

    filled = _PLACEHOLDER.sub(lambda match: arguments[match[1]], written)
    return _INCLUDE.sub(include, filled)


def _arguments(match: re.Match[str]) -> dict[str, str]:
    if match["lines"] is not None:
        given = [line.removeprefix("--").strip() for line in match["lines"].strip().splitlines()]
    else:
        given = (match["inline"] or "").split(";") if match["inline"] else []
    pairs = (argument.partition(":") for argument in given)
    return {name.strip(): value.strip() for name, _, value in pairs}


def _full_name(written: str, within: str) -> str:
    return written if "." in written else f"{within.partition('.')[0]}.{written}"


def _read(name: str) -> str:
    return _path(name).read_text()


def _path(name: str) -> Path:
    package, _, file = name.partition(".")
    return _PACKAGES / package / f"{file}.sql"
