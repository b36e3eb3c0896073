"""The `taskq` command itself."""

from __future__ import annotations

import io
import os
import signal
import subprocess
import sys
from dataclasses import replace

import pytest
from typer.testing import CliRunner, Result

import taskq
from taskq.cli.logs import LogFormat
from taskq.cli.main import COMMANDS, build
from taskq.cli.options import Banner, shortened
from tests.cli.terminal import Terminal


def typed(*words: str) -> Result:
    return CliRunner().invoke(build(), words, prog_name="taskq")


def test_python_m_taskq_is_the_command() -> None:
    command = [sys.executable, "-P", "-m", "taskq", "--version"]

    done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)

    assert (done.returncode, done.stdout) == (0, f"taskq {taskq.__version__}\n")


@pytest.mark.parametrize(
    "words", [["--version"], ["status"], ["status", "--json"], ["schedule", "ls"]]
)
def test_when_nobody_reads_it_ends_as_other_tools_do(terminal: Terminal, words: list[str]) -> None:
    reader, writer = os.pipe()
    os.close(reader)

    done = subprocess.run(
        [sys.executable, "-P", "-m", "taskq", *words],
        cwd=terminal.folder, env=terminal.environment,
        stdout=writer, stderr=subprocess.PIPE, timeout=30, check=False,
    )  # fmt: skip

    os.close(writer)
    assert (done.returncode, done.stderr) == (-signal.SIGPIPE, b"")


@pytest.mark.parametrize("words", [[], ["-h"], ["--help"]])
def test_help_lists_the_commands(words: list[str]) -> None:
    done = typed(*words)

    assert done.exit_code == 0 or not words
    for command in COMMANDS:
        assert f" {command.__name__} " in done.output


@pytest.mark.parametrize("command", [command.__name__ for command in COMMANDS])
def test_the_help_of_each_command_has_an_example(command: str) -> None:
    done = typed(command, "--help")

    assert done.exit_code == 0
    assert "Example" in done.output


def test_an_unknown_command_is_named() -> None:
    done = typed("wroker")

    assert done.exit_code == 2
    assert "wroker" in done.output


def test_importing_the_command_does_not_draw_anything_yet() -> None:
    program = "import sys, taskq.cli.main; print(*sys.modules)"

    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )

    heavy = {"fastapi", "pydantic", "redis", "rich", "uvicorn", "uvloop", "watchfiles"}
    assert heavy & set(done.stdout.split()) == set()


# -------------------------------------------------------------------------------------- banner

BANNER = Banner(
    version="1.2.3",
    target="app:q",
    server="redis://cache:6379/0",
    namespace="shop",
    signed=False,
    queues=("default", "email"),
    tasks=tuple(f"app.task{number}" for number in range(10)),
    concurrency=100,
    threads=40,
    executor_processes=2,
    workers=4,
    loop="uvloop",
    pid=42,
    grace=30.0,
)


def test_the_banner_is_plain_text_where_nobody_looks(capsys: pytest.CaptureFixture[str]) -> None:
    BANNER.show(LogFormat.TEXT)

    written = capsys.readouterr()
    assert written.out == ""
    assert "\x1b" not in written.err
    assert "  server       redis://cache:6379/0, namespace shop\n" in written.err
    assert "app.task7 and 2 more" in written.err
    assert "4 on uvloop, pid 42" in written.err


def test_the_banner_says_whether_jobs_are_signed(capsys: pytest.CaptureFixture[str]) -> None:
    BANNER.show(LogFormat.TEXT)
    assert "  signing      off\n" in capsys.readouterr().err

    replace(BANNER, signed=True).show(LogFormat.TEXT)
    assert "  signing      signed: " in capsys.readouterr().err


def test_the_banner_has_colours_on_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.delenv("NO_COLOR", raising=False)

    BANNER.show(LogFormat.TEXT)

    assert "\x1b[" in terminal.getvalue()
    assert "redis://cache:6379/0, namespace shop" in terminal.getvalue()


def test_long_lists_are_shortened() -> None:
    assert shortened(("a", "b"), most=2) == "a, b"
    assert shortened(("a", "b", "c", "d"), most=2) == "a, b and 2 more"
