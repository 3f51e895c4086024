"""Lint every statement of ``ledger_db`` as the database gets it, includes in place: ``python -m tests.lints.sql``.

sqlfluff by itself cannot parse a file whose CTEs come from another one.
"""

from __future__ import annotations

import sys
from pathlib import Path

from sqlfluff.core import FluffConfig, Linter

import ledger_db
from ledger_db.core.statements import includes, source

#: A file that an include stands for one of; the other one is as simple as can be.
RATE = ("postings.rate", "postings.legacy_rate")


def statements() -> list[str]:
    """The names of all whole statements; parts of them are linted where they are included."""
    files = Path(ledger_db.__file__).parent.glob("*/*.sql")
    names = {f"{path.parent.name}.{path.stem}" for path in files}
    parts = {part for name in names for part in includes(name)} | {"postings.no_rate", "postings.legacy_rate"}
    return sorted(names - parts)


def main() -> int:
    linter = Linter(config=FluffConfig.from_path(str(Path(ledger_db.__file__).parent.parent)))
    found = 0
    for name in statements():
        rendered = source(name, (RATE,))
        for violation in linter.lint_string(f"{rendered.strip()}\n").get_violations():
            line = rendered.splitlines()[violation.line_no - 1].strip()
            sys.stdout.write(f"{name}: {violation.rule_code()} {violation.desc()} at: {line}\n")
            found += 1
    sys.stdout.write(f"{len(statements())} statements, {found} findings\n")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
