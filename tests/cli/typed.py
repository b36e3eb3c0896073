"""Commands that look, and end: typed in this process, where starting Python costs nothing."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable

import typer
from click.testing import Result
from typer.testing import CliRunner

from taskq.cli.doctor import doctor
from taskq.cli.enqueue import enqueue
from taskq.cli.schedule import schedule_commands
from taskq.cli.status import status

__all__ = ["typed"]

COMMANDS: tuple[Callable[..., None], ...] = (status, doctor, enqueue)


async def typed(*words: str, **environment: str) -> Result:
    """Run `taskq WORDS` to its end; of the TASKQ_… variables only those given are set."""
    app = typer.Typer(pretty_exceptions_enable=False)
    for command in COMMANDS:
        app.command()(command)
    app.add_typer(schedule_commands(), name="schedule")
    unset = {name: None for name in os.environ if name.startswith("TASKQ_")}
    runner = CliRunner(env={**unset, "COLUMNS": "200", "NO_COLOR": "1"})
    # In a thread of its own: the command runs its own event loop.
    return await asyncio.to_thread(runner.invoke, app, list(words), env=environment)
