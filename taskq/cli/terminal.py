"""The output of commands: tables and notes, in colour on a terminal and plain elsewhere.

Foreign text is escaped: control characters never reach the terminal.
"""

from __future__ import annotations

import re
import sys
import textwrap
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from taskq.core.text import CONTROLS
from taskq.redis.server_check import Level

if TYPE_CHECKING:
    from rich.console import Console, ConsoleOptions, Group, RenderResult
    from rich.table import Table
    from rich.text import Text

__all__ = ["Grid", "Note", "Page", "indented", "printable"]


def printable(text: str, *, lines: bool = False) -> str:
    r"""`text` with its control characters as escapes; with `lines` line feeds stay.

    >>> printable("a\x1b[2Jb\n")
    'a\\x1b[2Jb\\n'
    """
    return CONTROLS.sub(_kept if lines else _escaped, text)


def indented(text: str) -> str:
    """`printable` lines, indented after the first so that none can pass for another record."""
    return printable(text, lines=True).replace("\n", "\n  ")


def _escaped(found: re.Match[str]) -> str:
    return found[0].encode("unicode_escape", "surrogatepass").decode()


def _kept(found: re.Match[str]) -> str:
    return found[0] if found[0] in "\n\t" else _escaped(found)


_GAP = 2
_NARROWEST = 40
"""A narrower terminal breaks lines by itself."""

_COMMAND = re.compile(r"(.*:) (taskq .*)")
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
        # A squeezed table cuts its cells, and a number that lost a digit is another number. So a
        # table that does not fit is printed as lines, broken between words.
        return self._as_table() if self._least_width() <= options.max_width else self._as_text()

    def _least_width(self) -> int:
        """Its width when text in the last column is broken between words."""
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
    """A line that begins with a word in the colour of its level; `more` is printed below."""

    level: Level
    word: str
    text: str
    more: str = ""

    def __post_init__(self) -> None:
        for name in ("text", "more"):
            object.__setattr__(self, name, printable(getattr(self, name)))

    def lines(self, room: int) -> list[str]:
        """As lines of up to `room` characters; a command that does not fit gets its own line."""
        text, command = self.text, ""
        if len(self.text) > room and (found := _COMMAND.match(self.text)):
            text, command = found[1], found[2]
        return [line for part in (text, command, self.more) if part for line in _broken(part, room)]

    def line(self, width: int) -> str:
        """As plain text, the word padded to `width`."""
        more = f"\n{'':<{width}}{self.more}" if self.more else ""
        return f"{self.word:<{width}}{self.text}{more}"


@dataclass(frozen=True, slots=True)
class _Lines:
    """Text broken between words, with `first` before its first line as a column."""

    text: Callable[[int], list[str]]
    first: Text
    style: str = ""

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        from rich.text import Text

        indent = self.first.cell_len
        narrow = options.max_width < _NARROWEST
        for number, line in enumerate(self.text(10_000 if narrow else options.max_width - indent)):
            before = Text(" " * indent) if number else self.first
            yield Text.assemble(before, (line, self.style), no_wrap=True, overflow="ignore")


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
        """As an object that rich can print and refresh."""
        from rich.console import Group
        from rich.text import Text

        head = _Lines(lambda room: _broken(self.head, room), Text(), "bold")
        parts: list[_Lines | Text | Grid] = [head, Text()]
        for grid in self.grids:
            if grid.rows:
                parts += [grid, Text()]
        width = self._width()
        for note in self.notes:
            word = Text(f"{note.word:<{width}}")
            word.stylize(_STYLES[note.level], 0, len(note.word))
            parts.append(_Lines(note.lines, word))
        return Group(*parts)

    def _width(self) -> int:
        return max(len(note.word) for note in self.notes) + 2 if self.notes else 0


def _broken(text: str, room: int) -> list[str]:
    """The lines of a text, broken between words where they are longer than `room`."""
    return [
        line
        for paragraph in text.split("\n")
        for line in textwrap.wrap(paragraph, room, break_long_words=False, break_on_hyphens=False)
        or [""]
    ]
