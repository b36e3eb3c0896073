"""The `taskq` command: its subcommands, and how errors end it."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable, Generator
from contextlib import contextmanager
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

import taskq
from taskq.cli.demo import demo
from taskq.cli.doctor import doctor
from taskq.cli.enqueue import enqueue
from taskq.cli.exits import ERROR, USAGE
from taskq.cli.schedule import schedule_commands
from taskq.cli.scheduler import scheduler
from taskq.cli.status import status
from taskq.cli.terminal import printable
from taskq.cli.worker import worker
from taskq.core.errors import ConfigError, TaskqError

__all__ = ["build", "main"]

COMMANDS: tuple[Callable[..., None], ...] = (
    worker,
    scheduler,
    enqueue,
    status,
    doctor,
    demo,
)
"""Plain functions with typer's annotations, in the order of the help."""


def main() -> None:
    """Run the command line; ends with exit code 0, 1 (error), 2 (usage) or 3 (unhealthy)."""
    try:
        build()(prog_name="taskq")
    except ConfigError as error:
        _end(error, USAGE)
    except TaskqError as error:
        _end(error, ERROR)
    finally:
        _ignore_closed_terminal()


def build() -> typer.Typer:
    """The command line with all its subcommands."""
    app = typer.Typer(
        cls=_Commands,
        no_args_is_help=True,
        pretty_exceptions_enable=False,
        rich_markup_mode="rich",
        context_settings={"help_option_names": ["-h", "--help"]},
    )
    app.callback()(_taskq)
    for command in COMMANDS:
        app.command()(command)
    app.add_typer(schedule_commands(), name="schedule")
    return app


class _Commands(TyperGroup):
    # Typer would turn a closed pipe into exit code 1, as if the command had failed.

    def make_context(self, *args: Any, **kwargs: Any) -> Any:
        # This prints the version.
        with _ends_with_reader():
            return super().make_context(*args, **kwargs)

    def invoke(self, ctx: Any) -> Any:
        with _ends_with_reader():
            return super().invoke(ctx)


@contextmanager
def _ends_with_reader() -> Generator[None, None, None]:
    """End silently by SIGPIPE, as `ls | head` does, when the reader of the output has gone."""
    try:
        try:
            yield
        finally:
            sys.stdout.flush()
    except BrokenPipeError:
        signal.signal(signal.SIGPIPE, signal.SIG_DFL)
        os.kill(os.getpid(), signal.SIGPIPE)


def _ignore_closed_terminal() -> None:
    """Keep lines for a closed terminal from failing the command."""
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except OSError:
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def _show_version(wanted: bool) -> None:
    if wanted:
        print(f"taskq {taskq.__version__}")
        raise typer.Exit


def _taskq(
    version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_show_version, is_eager=True, help="Show the version and exit."
        ),
    ] = False,
) -> None:
    """Run functions later, on any worker.

    Example: taskq worker app.py
    """


def _end(error: TaskqError, code: int) -> None:
    print(f"taskq: {printable(str(error), lines=True)}", file=sys.stderr)
    sys.exit(code)
