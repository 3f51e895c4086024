"""What pages, docstrings and comments refer to is there: files, statements, modules, functions, tables, links.

A reference is one of these, and nothing else, so that prose raises no alarm:

- a path that begins with a folder of the project (``tests/close/test_time.py``), or ``name.sql``;
- in double backticks (in pages: single ones) a dotted name whose first part is a package of the project, a package of
  ``ledger_db``, or a module of the same folder: ``books.recording.record``, ``recording.record``; or a table,
  ``ledger_eod.runs``;
- at the beginning of a comment the statement or function that it is about: ``# proposals.find_proposal: …``;
- ``:func:`` and its like; in pages also links with their headings, and ``make`` with a target.
"""

from __future__ import annotations

import ast
import io
import re
import tokenize
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path

import pytest

from ledger_db.attach.schema import metadata
from tests.testing import PROJECT

CODE = ("deployments", "flows", "tasks", "ledger_db", "tests", "benchmarks", "examples")
FOLDERS = (*CODE, "docs", ".ci", ".github")
PAGES = [PROJECT / "README.md", PROJECT / "CONTRIBUTING.md", *sorted((PROJECT / "docs").rglob("*.md"))]
SOURCES = sorted(
    path for name in (*CODE, "docs") for path in (PROJECT / name).rglob("*") if path.suffix in {".py", ".sql"}
)
TABLES = {*metadata.tables, "ledger_eod.daily_balances", "ledger_eod.schema_version", "blnk.identity"}

PATH = re.compile(rf"(?<![\w./-])(?:{'|'.join(map(re.escape, FOLDERS))})/[\w./*-]*[\w*/]")
STATEMENT_FILE = re.compile(r"(?<![\w./*])\w+\.sql\b")
DOTTED = re.compile(r"[a-z_]\w*(?:\.\w+)+")
ROLE = re.compile(r":(?:func|class|meth|mod|data):`~?([\w.]+)`")
SUBJECTS = re.compile(r"# ([a-z_]+\.[a-z_]+(?:, [a-z_]+(?:\.[a-z_]+)?)*):")

STATEMENTS = {path.name for path in PROJECT.glob("ledger_db/**/*.sql")}
#: Examples of names, in pages and docstrings.
SAMPLES = frozenset({"name.sql", "package.name", "package.file"})


# What there is ---------------------------------------------------------------------------------------------------------


def module_file(parts: tuple[str, ...]) -> Path | None:
    """The file of a module or package."""
    place = PROJECT.joinpath(*parts)
    if place.with_suffix(".py").is_file():
        return place.with_suffix(".py")
    return place / "__init__.py" if (place / "__init__.py").is_file() else None


@lru_cache
def names_in(module: Path) -> dict[str, frozenset[str]]:
    """Names that a module defines or imports, each with the names inside it if it is a class."""
    found: dict[str, frozenset[str]] = {}
    for node in ast.parse(module.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.If):  # TYPE_CHECKING
            found |= {name: frozenset() for each in node.body for name in bound_by(each)}
        found |= {name: members_of(node) for name in bound_by(node)}
    return found


def members_of(node: ast.stmt) -> frozenset[str]:
    """What a class defines; empty where it inherits more."""
    if not isinstance(node, ast.ClassDef) or node.bases:
        return frozenset()
    return frozenset(name for each in node.body for name in bound_by(each))


def bound_by(node: ast.stmt) -> list[str]:
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
        return [node.name]
    if isinstance(node, ast.Import | ast.ImportFrom):
        return [(alias.asname or alias.name).partition(".")[0] for alias in node.names]
    targets = node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", None)]
    return [each.id for target in targets for each in ast.walk(target or ast.Pass()) if isinstance(each, ast.Name)]


def resolves(parts: tuple[str, ...]) -> bool:
    """Whether a full dotted name is a package, a module, something in one, or a statement (``package.file``)."""
    for length in range(len(parts), 0, -1):
        module = module_file(parts[:length])
        if module is None:
            continue
        rest = parts[length:]
        if not rest:
            return True
        if len(rest) == 1 and (module.parent / f"{rest[0]}.sql").is_file() and module.name == "__init__.py":
            return True
        defined = names_in(module)
        if rest[0] not in defined:
            return False
        inside = defined[rest[0]]
        return len(rest) == 1 or not inside or rest[1] in inside
    return False


def is_reference(name: str, folder: Path) -> tuple[tuple[str, ...], ...]:
    """The full names that a dotted name may stand for where it is written; none: it refers to no code."""
    parts = tuple(name.split("."))
    if parts[0] in CODE:
        return (parts,)
    here = folder.relative_to(PROJECT).parts
    meant = []
    if here[:1] and here[0] in CODE and module_file((*here, parts[0])) is not None:
        meant.append((*here, *parts))
    if module_file(("ledger_db", parts[0])) is not None:
        meant.append(("ledger_db", *parts))
    return tuple(meant)


# What is written ----------------------------------------------------------------------------------------------------------


def prose_of(path: Path) -> Iterator[str]:
    """Docstrings and comments of a source; a block of comments line by line."""
    text = path.read_text(encoding="utf-8")
    if path.suffix == ".sql":
        yield from re.findall(r"--[^\n]*", text)
        return
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type == tokenize.COMMENT:
            yield token.string
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            yield ast.get_docstring(node) or ""


def stale_names(prose: str, folder: Path, quoted: str) -> Iterator[str]:
    for name in re.findall(quoted, prose):
        if not DOTTED.fullmatch(name) or name.endswith((".py", ".sql", ".md", ".json", ".csv", ".out", ".yaml")):
            continue
        if name.startswith(("ledger_eod.", "blnk.")) and name.count(".") == 1:
            if name not in TABLES:
                yield name
        elif (meant := is_reference(name, folder)) and not any(map(resolves, meant)):
            yield name


def stale_paths(prose: str) -> Iterator[str]:
    for path in PATH.findall(prose):
        if not (any(PROJECT.glob(path.rstrip("/"))) if "*" in path else (PROJECT / path).exists()):
            yield path
    yield from (name for name in STATEMENT_FILE.findall(prose) if name not in STATEMENTS | SAMPLES)


def stale_in_source(path: Path) -> list[str]:
    stale: list[str] = []
    for prose in prose_of(path):
        stale += stale_paths(prose)
        stale += stale_names(prose, path.parent, r"``([^`]+?)(?:\(\))?``")
        for role in ROLE.findall(prose):
            own = tuple(path.relative_to(PROJECT).with_suffix("").parts)
            meant = [(*own, *role.split(".")), tuple(role.split(".")), *is_reference(role, path.parent)]
            if not any(map(resolves, meant)):
                stale.append(role)
        subjects = SUBJECTS.match(prose)
        for name in subjects[1].split(", ") if subjects else ():
            if "." in name and not name.endswith(".sql") and not any(map(resolves, is_reference(name, path.parent))):
                stale.append(name)
    return stale


def heading_anchors(page: Path) -> set[str]:
    headings = re.findall(r"^#+ (.+)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def stale_in_page(page: Path) -> list[str]:
    text = page.read_text(encoding="utf-8")
    prose = re.sub(r"(?<=\n)\$ (?!python|make)[^\n]*", "", text)  # what an example printed is compared elsewhere
    stale = [*stale_paths(prose), *stale_names(prose, PROJECT, r"`([^`\n]+?)(?:\(\))?`")]
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        place, _, anchor = target.partition("#")
        if "://" in target:
            continue
        linked = (page.parent / place).resolve() if place else page
        if not linked.exists() or (anchor and anchor not in heading_anchors(linked)):
            stale.append(target)
    targets = set(re.findall(r"^([a-z]+):", (PROJECT / "Makefile").read_text(), re.MULTILINE))
    stale += [f"make {name}" for name in re.findall(r"`make ([a-z]+)`", text) if name not in targets]
    modules = re.findall(r"python -m ([a-z_]+(?:\.[a-z_]+)*)", text)
    stale += [name for name in modules if name.split(".")[0] in CODE and not resolves(tuple(name.split(".")))]
    return stale


# The tests ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(PROJECT)))
def test_pages_refer_to_what_is_there(page: Path) -> None:
    assert set(stale_in_page(page)) == set()


def test_docstrings_and_comments_refer_to_what_is_there() -> None:
    stale = {str(path.relative_to(PROJECT)): found for path in SOURCES if (found := set(stale_in_source(path)))}

    assert stale == {}


@pytest.mark.parametrize(
    ("written", "stale"),
    [
        ("see ``books.recording.record_many``", []),
        ("see ``books.record``", ["books.record"]),
        ("see ``ledger_db.books.recording.Movement.status``", []),
        ("see ``ledger_db.books.recording.Movement.state``", ["ledger_db.books.recording.Movement.state"]),
        ("the statement ``close.count_piece``", []),
        ("``recording.record``, and ``tables.balances``", []),
        ("``run.closes_at`` of a variable, ``app.command`` of a library", []),
        ("the table ``ledger_eod.runs``, and ``ledger_eod.run``", ["ledger_eod.run"]),
        ("tests/close/test_time.py, tests/test_time.py, tests/*/test_drift.py", ["tests/test_time.py"]),
        ("count_piece.sql and collect.sql", ["collect.sql"]),
    ],
)
def test_finds_what_is_stale(written: str, stale: list[str]) -> None:
    folder = PROJECT / "ledger_db" / "books"

    assert [*stale_paths(written), *stale_names(written, folder, r"``([^`]+?)(?:\(\))?``")] == stale
