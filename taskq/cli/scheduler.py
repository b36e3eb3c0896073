"""`taskq scheduler`: fires schedules without running jobs."""

from __future__ import annotations

import asyncio
import logging
import os

import taskq
from taskq.app import TaskQ, declarations_of, settings_of
from taskq.cli.exits import ERROR
from taskq.cli.init import leave_orphans_to_init
from taskq.cli.loading import Loaded, load_app
from taskq.cli.logs import LogFormat, LogLevel, configure_logs
from taskq.cli.options import Format, Level, Target
from taskq.core.signals import HangUps, stop_signals
from taskq.core.text import counted

__all__ = ["scheduler"]

_log = logging.getLogger("taskq.cli")


def scheduler(
    target: Target = None,
    log_level: Level = LogLevel.INFO,
    log_format: Format = LogFormat.TEXT,
) -> None:
    """Fire schedules until stopped, and run no jobs. You may start several: one of them leads.

    Workers fire schedules too, unless they run with --no-scheduler.

    Example: taskq scheduler shop.tasks:q
    """
    leave_orphans_to_init()
    configure_logs(log_level, log_format, with_pid=False)
    loaded = load_app(target)
    asyncio.run(_serve(loaded))


async def _serve(loaded: Loaded) -> None:
    app = loaded.app
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    hang_ups = HangUps()

    def stop_or_exit(signum: int) -> None:
        echo = hang_ups.is_echo(signum)
        if not stop.is_set():
            stop.set()
        elif not echo:
            # The server may not answer; another scheduler takes over either way.
            os._exit(ERROR)

    for number in stop_signals():
        loop.add_signal_handler(number, stop_or_exit, number)
    await _announce(app, loaded.target)
    async with app.scheduler():
        await stop.wait()
        _log.info("stopping")
    await app.aclose()


async def _announce(app: TaskQ, target: str) -> None:
    declared = counted(len(declarations_of(app)), "schedule", "schedules")
    _log.info(
        "taskq %s scheduler of %s, on %s, namespace %s, %s in the code; Ctrl-C ends it",
        taskq.__version__,
        target,
        await settings_of(app).locate(),
        settings_of(app).keys.namespace,
        declared,
    )
