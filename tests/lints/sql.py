"""Lint every statement of ``ledger_db`` as the database gets it, includes in place: ``python -m tests.lints.sql``.

sqlfluff by itself cannot parse a file whose CTEs come from another one. An include starts in the first column, because
its line is a directive. For the linter the included text is moved to where it would stand if it had been written there.
"""

from __future__ import annotations

import re
import sys
import textwrap
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

import ledger_db
from ledger_db.core import statements as loader
from ledger_db.core.statements import includes, source

if TYPE_CHECKING:
    from sqlfluff.core import Linter

#: A file that an include stands for one of; the other one is as simple as can be.
RATE = ("postings.rate", "postings.legacy_rate")
#: The rows of a piece: an include of one statement, which is linted with each of its files.
PIECE_ROWS = ("close.piece_rows", ("close.new_rows", "close.older_rows"))
#: Whose balances: of a run, or of a preparation.
BALANCES = ("close.answered_balances", "close.prepared_balances")
STEP = 4
#: A placeholder that stands alone on its line; it stands for a list.
ALONE = re.compile(r"^( *)\{([a-z_]+)\}$", re.MULTILINE)
#: After these an included text is one step further in: an opening bracket, or a clause that stands alone on its line.
OPENS = re.compile(r"(\(|^ *(SELECT|WHERE|HAVING|ELSE))( *--.*)?$")


def statements() -> list[str]:
    """The names of all whole statements; parts of them are linted where they are included."""
    files = Path(ledger_db.__file__).parent.glob("*/*.sql")
    names = {f"{path.parent.name}.{path.stem}" for path in files}
    chosen = {"postings.no_rate", "postings.legacy_rate", *PIECE_ROWS[1], BALANCES[1]}
    parts = {part for name in {*names, *PIECE_ROWS[1]} for part in includes(name)} | chosen
    return sorted(names - parts)


def variants(name: str) -> list[tuple[tuple[str, str], ...]]:
    """The ways in which a statement is rendered."""
    if PIECE_ROWS[0] not in includes(name):
        return [(RATE,)]
    every = [(RATE, (PIECE_ROWS[0], rows)) for rows in PIECE_ROWS[1]]
    return [*every, (*every[0], BALANCES)]


def laid_out(name: str, variant: tuple[tuple[str, str], ...] = (RATE,)) -> str:
    """A statement as ``source`` renders it, with the included texts indented.

    Raises:
        ValueError: it differs from what ``source`` renders by more than white space.
    """
    text = _laid_out(name, {}, dict(variant)).strip() + "\n"
    if text.split() != source(name, variant).split():
        raise ValueError(f"{name} is not what the database gets")
    return text


def _laid_out(name: str, arguments: dict[str, str], variant: dict[str, str]) -> str:
    written = ALONE.sub(
        lambda match: textwrap.indent(arguments[match[2]].replace(", ", ",\n"), match[1]), loader._read(name)
    )
    written = loader._PLACEHOLDER.sub(lambda match: arguments[match[1]], written)
    text, end = "", 0
    for match in loader._INCLUDE.finditer(written):
        text += written[end : match.start()]
        end = match.end()
        included = loader._full_name(match["name"], name)
        included = variant.get(included, included)
        text += textwrap.indent(
            _laid_out(included, loader._arguments(match), variant).strip(), " " * _indentation(text)
        )
    return text + written[end:]


def _indentation(before: str) -> int:
    """Of a text that follows. An alias on a line of its own stands one step further in than what it names."""
    line = before.rstrip().splitlines()[-1]
    own = len(line) - len(line.lstrip())
    if OPENS.search(line):
        return own + STEP
    return own - STEP if line.lstrip().startswith("AS ") else own


def findings(name: str, text: str) -> list[str]:
    """What sqlfluff finds in a statement, one line each."""
    lines = text.splitlines()
    return [
        f"{name}: {violation.rule_code()} {violation.desc()} at: {lines[violation.line_no - 1].strip()}"
        for violation in _linter().lint_string(text).get_violations()
    ]


@lru_cache
def _linter() -> Linter:
    # Not imported by a test: it derives metaclasses from ABC, and Prefect's server cannot be imported after that.
    from sqlfluff.core import FluffConfig, Linter

    return Linter(config=FluffConfig.from_path(str(Path(ledger_db.__file__).parent.parent)))


def main(arguments: list[str]) -> int:
    """Lint every statement, or with ``-`` the one on standard input; 1 when anything is found."""
    if arguments == ["-"]:
        names, found = ["standard input"], findings("standard input", sys.stdin.read())
    else:
        names = statements()
        found = [
            finding
            for name in names
            for variant in variants(name)
            for finding in findings(name, laid_out(name, variant))
        ]
    sys.stdout.writelines(f"{finding}\n" for finding in found)
    sys.stdout.write(f"{len(names)} statements, {len(found)} findings\n")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
