"""Find an idea outside the one place in the code that is its home: ``python -m tests.lints.homes``.

Each rule is about one idea. Migrations are frozen history, so only the rule about them reads them. Tests and benchmarks
set up what the code must not do, so no rule reads them. Comments may name anything.
"""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Final, NamedTuple

from ledger_db.core.amounts import AMOUNT_COLUMNS
from ledger_db.postings.rules import STATUSES

ROOT: Final = Path(__file__).resolve().parent.parent.parent
PACKAGES: Final = ("deployments", "flows", "ledger_db", "tasks")
MIGRATIONS: Final = "ledger_db/attach/migrations/versions/"

CUT_FILES: Final = ("ledger_db/close/after_cut.sql", "ledger_db/close/in_cut.sql")
SHARED_INCLUDES: Final = (
    "close.after_cut", "close.in_cut", "close.in_chain", "close.is_counted", "close.not_counted", "close.older_keys",
    "close.pending_keys", "close.keys_by_block", "close.chain_keys_by_block", "close.business_date", "close.since_cut",
)  # fmt: skip
#: Runs an edit by hand, and prints it as it runs it.
DEMO: Final = "deployments/demo.py"
#: The loader of .sql files, the catalogue's queries, the defaults of columns of amounts, and the demo.
TEXT_FILES: Final = (
    "ledger_db/core/statements.py", "ledger_db/server/catalogue.py", "ledger_db/core/metadata.py", DEMO,
)  # fmt: skip
#: First words of what is not a query: commands of the session, and definitions.
COMMANDS: Final = ("SET", "LOCK", "CREATE", "ALTER", "DROP", "ANALYZE", "VACUUM", "COPY")
#: SQL inside a definition of a table or an index, which SQLAlchemy takes as text only.
DEFINITIONS: Final = ("Table", "Column", "Index", "CheckConstraint", "Computed", "mapped_column")

_STATUS_LIST: Final = re.compile(r"\(\s*(?:ARRAY\s*\[)?((?:\s*'[A-Z_]+'\s*,?)+)")
_EFFECTIVE: Final = re.compile(r"COALESCE\s*\(([^()]*)\)", re.IGNORECASE)
_COMMAND_LINE: Final = re.compile(r"ledger-eod ([a-z-]+)")
_INCLUDE: Final = re.compile(r"^-- include ([a-z_]+(?:\.[a-z_]+)?)", re.MULTILINE)
_AMOUNT: Final = re.compile(rf"(?<![a-z_])(?:[a-z_]*_)?(?:{'|'.join(AMOUNT_COLUMNS[1:])})(?![a-z_])|^balance$")
#: The column ``balance`` in a list; the word alone may mean anything.
_PLAIN_BALANCE: Final = re.compile(r"(?<![a-z_.])balance(?=\s*[,=)])")


@dataclass(frozen=True)
class File:
    """A file of the project. ``path``: from the project's root, with slashes."""

    path: str
    text: str

    @property
    def is_python(self) -> bool:
        return self.path.endswith(".py")

    @property
    def is_migration(self) -> bool:
        return self.path.startswith(MIGRATIONS)

    @cached_property
    def tree(self) -> ast.Module:
        return ast.parse(self.text)

    @cached_property
    def nodes(self) -> list[ast.AST]:
        return list(ast.walk(self.tree)) if self.is_python else []

    @cached_property
    def docstrings(self) -> set[ast.AST]:
        """The nodes of docstrings, and of strings that stand alone as a comment does."""
        return {
            node.value for node in self.nodes if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
        }

    @cached_property
    def strings(self) -> list[tuple[int, str]]:
        """Line and text of every string but the docstrings; what an f-string fills in is left out."""
        inside = {part for node in self.nodes if isinstance(node, ast.JoinedStr) for part in ast.walk(node)} - {
            node for node in self.nodes if isinstance(node, ast.JoinedStr)
        }
        return [
            (line_of(node), _string(node))
            for node in self.nodes
            if node not in self.docstrings and node not in inside and _is_string(node)
        ]

    @cached_property
    def sql(self) -> list[tuple[int, str]]:
        """Line and text of every piece of SQL that may be in it, without comments."""
        if self.is_python:
            return self.strings
        return [(1, re.sub(r"--[^\n]*", "", self.text))]


class Seen(NamedTuple):
    """What a rule looked at. ``stray``: a sentence that names what is wrong with it."""

    line: int
    stray: str | None = None


Rule = Callable[[File], Iterator[Seen]]


def visibility(file: File) -> Iterator[Seen]:
    """``pg_visible_in_snapshot`` stands in ``close/in_cut.sql`` and ``close/after_cut.sql``."""
    stray = None if file.path in CUT_FILES else "pg_visible_in_snapshot belongs in close/in_cut.sql and after_cut.sql."
    for line, text in file.sql:
        for match in re.finditer("pg_visible_in_snapshot", text):
            yield Seen(line + text.count("\n", 0, match.start()), stray)
    for node in file.nodes:
        if isinstance(node, ast.Attribute) and node.attr == "pg_visible_in_snapshot":
            yield Seen(node.lineno, stray)


def statuses(file: File) -> Iterator[Seen]:
    """A list of transaction statuses stands in ``postings/``, in Python in ``postings/rules.py``."""
    home = file.path == "ledger_db/postings/rules.py" or (_is_posting_rule(file) and not file.is_python)
    stray = None if home else "a list of transaction statuses belongs in ledger_db/postings/."
    for line, text in file.sql:
        for match in _STATUS_LIST.finditer(text):
            if len(set(re.findall("[A-Z_]+", match[1])) & set(STATUSES)) > 1:
                yield Seen(line + text.count("\n", 0, match.start()), stray)
    for node in file.nodes:
        if isinstance(node, ast.Tuple | ast.List | ast.Set) and len(_constants(node) & set(STATUSES)) > 1:
            yield Seen(node.lineno, stray)


def effective_instant(file: File) -> Iterator[Seen]:
    """The instant from which a posting counts is determined in ``postings/``."""
    stray = None if _is_posting_rule(file) else "the effective instant belongs in ledger_db/postings/."

    def is_effective(text: str) -> bool:
        return "effective_date" in text and "created_at" in text

    for line, text in file.sql:
        for match in _EFFECTIVE.finditer(text):
            if is_effective(match[1]):
                yield Seen(line + text.count("\n", 0, match.start()), stray)
    for node in file.nodes:
        chooses = isinstance(node, ast.BoolOp) and isinstance(node.op, ast.Or)
        if (chooses or _called(node) == "coalesce") and is_effective(ast.unparse(node)):
            yield Seen(line_of(node), stray)


def amount_columns(file: File) -> Iterator[Seen]:
    """In Python, the columns of amounts are listed in ``core/amounts.py``."""
    home = file.path in ("ledger_db/core/amounts.py", DEMO)
    stray = None if home else "a list of amount columns belongs in ledger_db/core/amounts.py."
    for node in file.nodes:
        if isinstance(node, ast.Tuple | ast.List | ast.Set):
            names = {name for name in _constants(node) if _AMOUNT.fullmatch(name)}
            if len(names) > 1:
                yield Seen(node.lineno, stray)
    for line, text in file.strings:
        if len({*_AMOUNT.findall(text), *_PLAIN_BALANCE.findall(text)}) > 1:
            yield Seen(line, stray)


def text_queries(file: File) -> Iterator[Seen]:
    """SQLAlchemy's ``text`` is for what it has no expression for: commands of the session, and definitions."""
    if not file.is_python:
        return
    names = {
        alias.asname or alias.name
        for node in file.nodes
        if isinstance(node, ast.ImportFrom) and (node.module or "").partition(".")[0] == "sqlalchemy"
        for alias in node.names
        if alias.name == "text"
    }
    defining = {
        inner for node in file.nodes if _called(node) in DEFINITIONS for inner in ast.walk(node) if inner is not node
    }
    for node in file.nodes:
        if not isinstance(node, ast.Call) or not node.args:
            continue
        by_name = isinstance(node.func, ast.Name) and node.func.id in names
        by_module = isinstance(node.func, ast.Attribute) and ast.unparse(node.func) in ("sqlalchemy.text", "sa.text")
        if by_name or by_module:
            first = _string(node.args[0]).split()[:1] if _is_string(node.args[0]) else []
            allowed = file.path in TEXT_FILES or node in defining or (first and first[0].upper() in COMMANDS)
            yield Seen(
                node.lineno,
                None if allowed else "text() is for session commands and definitions; use Core or a .sql file.",
            )


def command_line(file: File) -> Iterator[Seen]:
    """A command of the command line is named by ``deployments``, and for a flow's state in ``flows/parts/hints.py``."""
    if not file.is_python or file.path.startswith("deployments/") or file.path == "flows/parts/hints.py":
        return
    for node in file.nodes:
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            named = [match for match in _COMMAND_LINE.finditer(node.value) if match[1] in commands()]
            offset = node.value.count("\n", 0, named[0].start()) if named and node in file.docstrings else 0
            stray = "a command of ledger-eod is named below deployments/; use a hint." if named else None
            yield Seen(node.lineno + offset, stray)


def includes(file: File) -> Iterator[Seen]:
    """Across packages only the posting rules and the cut are included."""
    if file.is_python:
        return
    own = file.path.split("/")[1]
    for match in _INCLUDE.finditer(file.text):
        package, _, name = match[1].rpartition(".")
        shared = package in ("", own, "postings") or f"{package}.{name}" in SHARED_INCLUDES
        yield Seen(
            1 + file.text.count("\n", 0, match.start()),
            None
            if shared
            else f"{match[1]} belongs to another package and is not shared; only postings and what a close counts are.",
        )


def statement_names(file: File) -> Iterator[Seen]:
    """A statement is named after the function that runs it."""
    if file.path == "ledger_db/postings/rules.py":
        return

    def visit(node: ast.AST, functions: tuple[str, ...]) -> Iterator[Seen]:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            functions = (*functions, node.name.removeprefix("_"))
        if _called(node) in ("load", "statement") and isinstance(node, ast.Call):
            for named in (argument for argument in node.args if _is_string(argument)):
                name = _string(named).partition(".")[2]
                wrong = name and name not in functions
                yield Seen(node.lineno, f"{name}.sql is run by a function of another name." if wrong else None)
        for child in ast.iter_child_nodes(node):
            yield from visit(child, functions)

    if file.is_python:
        yield from visit(file.tree, ())


def frozen_migrations(file: File) -> Iterator[Seen]:
    """A migration imports nothing that can change later."""
    if not file.is_migration or not file.is_python:
        return
    for node in file.nodes:
        if isinstance(node, ast.ImportFrom):
            modules = ["ledger_db" if node.level else node.module or ""]
        elif isinstance(node, ast.Import):
            modules = [alias.name for alias in node.names]
        else:
            continue
        changes = any(module.partition(".")[0] in PACKAGES for module in modules)
        yield Seen(node.lineno, "a migration is frozen and imports nothing of this project." if changes else None)


RULES: Final[tuple[Rule, ...]] = (
    visibility, statuses, effective_instant, amount_columns, text_queries, command_line, includes, statement_names,
    frozen_migrations,
)  # fmt: skip


def looked_at(rule: Rule, files: Iterable[File]) -> list[tuple[File, Seen]]:
    """All that a rule looks at in some files."""
    return [(file, seen) for file in files if rule is frozen_migrations or not file.is_migration for seen in rule(file)]


def strays(files: Iterable[File]) -> list[str]:
    """One line for each stray: file, line and a sentence."""
    return [
        f"{file.path}:{seen.line}: {seen.stray}"
        for rule in RULES
        for file, seen in looked_at(rule, files)
        if seen.stray is not None
    ]


@lru_cache
def project() -> tuple[File, ...]:
    """The code and the SQL of the packages."""
    paths = [
        path for package in PACKAGES for path in sorted((ROOT / package).rglob("*")) if path.suffix in (".py", ".sql")
    ]
    return tuple(File(path.relative_to(ROOT).as_posix(), path.read_text()) for path in paths)


@lru_cache
def commands() -> frozenset[str]:
    """The names of the commands that ``deployments`` defines."""
    return frozenset(
        _string(name)
        for file in project()
        if file.path.startswith("deployments/")
        for node in file.nodes
        if _called(node) == "command" and isinstance(node, ast.Call)
        for name in [*node.args, *(keyword.value for keyword in node.keywords if keyword.arg == "name")]
        if _is_string(name)
    )


def line_of(node: ast.AST) -> int:
    return int(getattr(node, "lineno", 1))


def _is_posting_rule(file: File) -> bool:
    return file.path.startswith("ledger_db/postings/")


def _is_string(node: ast.AST) -> bool:
    return isinstance(node, ast.JoinedStr) or (isinstance(node, ast.Constant) and isinstance(node.value, str))


def _string(node: ast.AST) -> str:
    if isinstance(node, ast.JoinedStr):
        return "".join(_string(part) for part in node.values)
    return node.value if isinstance(node, ast.Constant) and isinstance(node.value, str) else ""


def _constants(node: ast.Tuple | ast.List | ast.Set) -> set[str]:
    return {_string(item) for item in node.elts if _is_string(item)}


def _called(node: ast.AST) -> str | None:
    """The last name of what a call calls."""
    if not isinstance(node, ast.Call):
        return None
    return node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", None)


def main() -> int:
    files = project()
    found = strays(files)
    sys.stdout.writelines(f"{line}\n" for line in found)
    sys.stdout.write(f"{len(files)} files, {len(RULES)} rules, {len(found)} strays\n")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
