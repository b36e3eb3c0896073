"""What commands show on terminals of any width."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from taskq.cli.terminal import Grid, Note, Page

WORKERS = Grid(
    ("worker", "pid", "running", "of", "finished", "memory", "up", "last beat", "queues"),
    (
        ("web-7-0a1b2c3d", "30416", "7", "100", "12,345", "43 MiB", "7 min", "340 ms ago", "a, b"),
        ("web-7-4e5f6071", "30417", "0", "100", "1", "41 MiB", "7 min", "2 s ago", "email"),
    ),
    frozenset({"worker", "queues"}),
)
SCHEDULES = Grid(
    ("schedule", "state", "next fire", "fired", "skipped", "when"),
    (("shop.daily_report", "active", "in 13 h", "10", "1,024", "every 5 minutes"),),
    frozenset({"schedule", "state", "next fire", "when"}),
)


def seen(page: Page, width: int) -> str:
    """What stands on a terminal of this width."""
    terminal = Console(file=io.StringIO(), width=width, force_terminal=True, color_system=None)
    page.print_on(terminal)
    assert isinstance(terminal.file, io.StringIO)
    return terminal.file.getvalue()


@pytest.mark.parametrize("grid", [WORKERS, SCHEDULES], ids=["workers", "schedules"])
@pytest.mark.parametrize("width", [40, 45, 60, 80, 90, 100, 120, 200])
def test_no_number_is_ever_cut(grid: Grid, width: int) -> None:
    words = seen(Page("head", (grid,)), width).split()

    wanted = [word for row in (grid.columns, *grid.rows) for cell in row for word in cell.split()]
    assert sorted(words) == sorted(["head", *wanted])


def test_controls_in_names_and_reasons_are_shown_as_escapes() -> None:
    evil = "a\nb\x1b[2J\x9b1m\u202e"
    grid = Grid(("worker", "queues"), ((evil, evil),), frozenset({"worker", "queues"}))
    page = Page(f"head {evil}", (grid,), (Note("bad", "bad", evil, evil),))

    for text in (page.plain(), seen(page, 100)):
        assert {character for character in text if not character.isprintable()} == {"\n"}
        assert r"a\nb\x1b[2J\x9b1m\u202e" in text


def test_a_table_that_fits_stands_in_columns() -> None:
    lines = [line.rstrip() for line in seen(Page("head", (WORKERS,)), 100).splitlines()]

    assert lines[2:5] == WORKERS.lines()


def test_text_in_the_last_column_is_broken_within_its_column() -> None:
    lines = seen(Page("head", (SCHEDULES,)), 64).splitlines()

    assert lines[3].rstrip().endswith("every 5")
    assert lines[4].strip() == "minutes"
    assert lines[4].index("minutes") == lines[3].index("every")


LONG = Page(
    "unix:///srv/shop/.taskq/valkey.sock, namespace shop-of-the-north\n"
    "1 waiting, 0 running, 1 scheduled (the next in 5 min), 0 failed, and so on",
    (WORKERS,),
    (
        Note("bad", "bad", "queue orphaned-by-a-deploy: 1 job waits, the oldest for 801 ms, and no "
             "worker listens: taskq worker app:q -q orphaned-by-a-deploy", "fix: as said"),
    ),
)  # fmt: skip


@pytest.mark.parametrize("width", [60, 80])
def test_no_word_is_broken_where_a_terminal_has_room_for_it(width: int) -> None:
    text = seen(LONG, width)

    assert max(len(line.rstrip()) for line in text.splitlines()) <= width
    assert text.split() == LONG.plain().split()
    # And a command can be copied
    assert "taskq worker app:q -q orphaned-by-a-deploy" in text


def test_a_line_with_what_to_type_is_left_to_the_terminal_to_break() -> None:
    note = Note("bad", "bad", "nobody listens: taskq worker shop.tasks:q -q default -q email")

    assert "bad  nobody listens: taskq worker shop.tasks:q -q default -q email\n" in seen(
        Page("head", notes=(note,)), 20
    )
