"""Lint every statement of ``ledger_db/sql`` as the database gets it, includes in place: ``python -m tests.lint_sql``.

sqlfluff by itself cannot parse a file whose CTEs come from another one.
"""

from __future__ import annotations

import sys
from pathlib import Path

from sqlfluff.core import FluffConfig, Linter

import ledger_db.sql

#: Parts of statements; they are linted where they are included.
PARTS = {"postings", "minor_amount", "no_rate", "legacy_rate"}


def main() -> int:
    folder = Path(ledger_db.sql.__file__).parent
    linter = Linter(config=FluffConfig.from_path(str(folder.parent.parent)))
    names = sorted(path.stem for path in folder.glob("*.sql") if path.stem not in PARTS)
    found = 0
    for name in names:
        rendered = ledger_db.sql._source(name, True)
        for violation in linter.lint_string(f"{rendered.strip()}\n").get_violations():
            line = rendered.splitlines()[violation.line_no - 1].strip()
            sys.stdout.write(f"ledger_db/sql/{name}.sql: {violation.rule_code()} {violation.desc()} at: {line}\n")
            found += 1
    sys.stdout.write(f"{len(names)} statements, {found} findings\n")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
