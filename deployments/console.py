"""The terminal: where results, progress and errors go, and tables that never cut off an amount.

Results go to standard output; progress and errors go to standard error.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from rich.cells import cell_len
from rich.console import Console, ConsoleOptions, Group, RenderableType, RenderResult
from rich.table import Table
from rich.text import Text

if TYPE_CHECKING:
    from pydantic import BaseModel

PLAIN_WIDTH = 200  # without a terminal
WRAPPED_WIDTH = 24  # columns that are wrapped are not narrowed further
RULE_WIDTH = 60


def out() -> Console:
    """The console for results. Without a terminal a table is as wide as it needs to be."""
    return _console(stderr=False)


def err() -> Console:
    """The console for progress and errors."""
    return _console(stderr=True)


def _console(*, stderr: bool) -> Console:
    is_terminal = (sys.stderr if stderr else sys.stdout).isatty()
    return Console(
        stderr=stderr, highlight=False, emoji=False, markup=False, width=None if is_terminal else PLAIN_WIDTH
    )


def write_json(shown: BaseModel | Sequence[BaseModel]) -> None:
    """One JSON document on standard output: an object, or an array of objects."""
    value = (
        [each.model_dump(mode="json") for each in shown]
        if isinstance(shown, Sequence)
        else shown.model_dump(mode="json")
    )
    sys.stdout.write(json.dumps(value, indent=2, ensure_ascii=False) + "\n")
    sys.stdout.flush()


def table(*columns: str, figures: Iterable[str] = (), wrapped: Iterable[str] = ()) -> Table:
    """A table whose ``figures`` columns are right-aligned; only ``wrapped`` columns give way to a narrow terminal."""
    shown = Table(header_style="bold")
    right, soft = set(figures), set(wrapped)
    for column in columns:
        shown.add_column(column, justify="right" if column in right else "left", no_wrap=column not in soft)
    return shown


def titled(title: str, shown: Table, remark: str | None = None) -> Group:
    """A table under its title, which a narrow table does not break into lines, and over a remark."""
    parts: list[RenderableType] = [Text(title, style="bold"), _Fitting(shown)]
    return Group(*parts, *([] if remark is None else [Text(remark)]))


class _Fitting:
    """A table where it fits into the terminal, else row by row, a line for each cell: no amount is ever cut off."""

    def __init__(self, shown: Table) -> None:
        self.shown = shown

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """Render for a terminal of this width; rich calls it."""
        if self._needed() <= options.max_width:
            yield self.shown
            return
        names = [str(column.header) for column in self.shown.columns]
        for cells in zip(*(column.cells for column in self.shown.columns), strict=True):
            row = Table.grid(padding=(0, 2))
            for name, cell in zip(names, cells, strict=True):
                if str(cell):
                    row.add_row(Text(name, style="bold"), str(cell))
            yield row
            yield Text("─" * min(options.max_width, RULE_WIDTH))

    def _needed(self) -> int:
        """The least width at which every column that is not wrapped keeps all of its text."""
        widths = []
        for column in self.shown.columns:
            longest = max(cell_len(str(cell)) for cell in [column.header, *column.cells])
            widths.append(longest if column.no_wrap else min(longest, WRAPPED_WIDTH))
        return sum(widths) + 3 * len(widths) + 1  # borders and the blanks beside them
