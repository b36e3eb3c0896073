"""`taskq demo`, where it cannot run; where it can, `make demo` shows it."""

from __future__ import annotations

from tests.cli.terminal import Terminal


def test_where_no_server_can_run_nothing_is_left(terminal: Terminal) -> None:
    folder = terminal.folder / ("d" * 120)
    folder.mkdir()

    done = terminal.output("demo", TMPDIR=str(folder))

    assert done.returncode == 1
    assert "is too long" in done.stderr
    assert list(folder.iterdir()) == []
