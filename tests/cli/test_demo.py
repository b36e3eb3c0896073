"""What the demo prints, and what it leaves; where it can run, `make demo` shows it."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from taskq.cli import demo
from tests.cli.terminal import Terminal


def test_where_no_server_can_run_nothing_is_left(terminal: Terminal) -> None:
    folder = terminal.folder / ("d" * 120)
    folder.mkdir()

    done = terminal.output("demo", TMPDIR=str(folder))

    assert done.returncode == 1
    assert "is too long" in done.stderr
    assert list(folder.iterdir()) == []


async def test_what_a_scene_tells_is_printed_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(demo, "find_spec", lambda _: None)
    screen = io.StringIO()
    shown = demo._Demo(Console(file=screen, width=200))

    await shown._scene("through a FastAPI app", shown._fastapi())
    shown._sum_up()

    line, *table = screen.getvalue().splitlines()
    assert 'left out, it needs uvicorn and FastAPI: pip install ".[fastapi]"' in line
    assert 'pip install ".[fastapi]"' in "".join(table)
