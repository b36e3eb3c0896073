"""What a command shows: tables and notes, in colour on a terminal, in plain columns elsewhere."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from taskq.broker.checkup import Level
from taskq.cli.printable import printable

if TYPE_CHECKING:
    from rich.console import Console, ConsoleOptions, Group, RenderResult
    from rich.table import Table
    from rich.text import Text

__all__ = ["Grid", "Note", "Page"]

_GAP = 2
_STYLES: dict[Level, str] = {"ok": "green", "warn": "yellow", "bad": "bold red"}


@dataclass(frozen=True, slots=True)
class Grid:
    """A table. The columns named in `left` hold text, the others numbers."""

    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    left: frozenset[str] = frozenset()

    def __post_init__(self) -> None:
        rows = tuple(tuple(map(printable, row)) for row in self.rows)
        object.__setattr__(self, "rows", rows)

    def lines(self) -> list[str]:
        """As plain text, a line per row."""
        table = (self.columns, *self.rows)
        widths = [max(len(row[at]) for row in table) for at in range(len(self.columns))]
        return ["  ".join(self._aligned(row, widths)).rstrip() for row in table]

    def _aligned(self, row: tuple[str, ...], widths: list[int]) -> list[str]:
        return [
            cell.ljust(width) if column in self.left else cell.rjust(width)
            for column, cell, width in zip(self.columns, row, widths, strict=True)
        ]

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        # A table that is squeezed cuts what is in it, and a number that lost a digit is another
        # number. Lines that are too long are broken between words.
        return self._as_table() if self._least_width() <= options.max_width else self._as_text()

    def _least_width(self) -> int:
        """How wide it is when text in the last column is broken between words."""
        from rich.cells import cell_len

        table = (self.columns, *self.rows)
        last = len(self.columns) - 1
        breaks = self.columns[last] in self.left
        widths = [max(cell_len(row[at]) for row in table) for at in range(last)]
        words = [word for row in table for word in (row[last].split() if breaks else [row[last]])]
        return sum(width + _GAP for width in widths) + max(map(cell_len, words), default=0)

    def _as_table(self) -> Iterator[Table]:
        from rich.table import Table
        from rich.text import Text

        table = Table(box=None, header_style="dim", pad_edge=False, padding=(0, _GAP, 0, 0))
        for column in self.columns:
            justify = "left" if column in self.left else "right"
            last = column == self.columns[-1]
            table.add_column(column, justify=justify, no_wrap=not last, overflow="fold")
        for row in self.rows:
            table.add_row(*map(Text, row))
        yield table

    def _as_text(self) -> Iterator[Text]:
        from rich.text import Text

        for number, line in enumerate(self.lines()):
            yield Text(line, style="" if number else "dim", no_wrap=False, overflow="fold")


@dataclass(frozen=True, slots=True)
class Note:
    """A line that begins with a word in the colour of its level; `more` goes below it."""

    level: Level
    word: str
    text: str
    more: str = ""

    def __post_init__(self) -> None:
        for name in ("text", "more"):
            object.__setattr__(self, name, printable(getattr(self, name)))

    def line(self, width: int) -> str:
        """As plain text, the word filled up to `width`."""
        more = f"\n{'':<{width}}{self.more}" if self.more else ""
        return f"{self.word:<{width}}{self.text}{more}"


@dataclass(frozen=True, slots=True)
class Page:
    """A head line, tables, and notes below them."""

    head: str
    grids: tuple[Grid, ...] = ()
    notes: tuple[Note, ...] = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, "head", printable(self.head, lines=True))

    def show(self) -> None:
        """Print it on standard output."""
        if sys.stdout.isatty():
            from rich.console import Console

            self.print_on(Console())
        else:
            print(self.plain(), flush=True)

    def print_on(self, terminal: Console) -> None:
        """Print it in colour."""
        terminal.print(self.rich(), highlight=False, soft_wrap=True)

    def plain(self) -> str:
        """As text without colours, for pipes and logs."""
        parts = [self.head, *("\n".join(grid.lines()) for grid in self.grids if grid.rows)]
        if self.notes:
            parts.append("\n".join(note.line(self._width()) for note in self.notes))
        return "\n\n".join(parts)

    def rich(self) -> Group:
        """As something rich can print and refresh."""
        from rich.console import Group
        from rich.text import Text

        parts: list[Text | Grid] = [Text(self.head, style="bold"), Text()]
        for grid in self.grids:
            if grid.rows:
                parts += [grid, Text()]
        width = self._width()
        for note in self.notes:
            line = Text(note.line(width))
            line.stylize(_STYLES[note.level], 0, len(note.word))
            parts.append(line)
        return Group(*parts)

    def _width(self) -> int:
        return max(len(note.word) for note in self.notes) + 2 if self.notes else 0
