"""Runs workers under a supervisor, and replaces them when code changes."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from pathlib import Path

from taskq.broker.broker import BrokerSettings
from taskq.cli.exits import ERROR, OK
from taskq.core.errors import ConfigError
from taskq.core.signals import HangUps, stop_signals
from taskq.core.text import install_command
from taskq.worker.supervisor import Supervisor, SupervisorSettings

__all__ = ["check_reload", "supervise"]

_log = logging.getLogger("taskq.cli")


def supervise(
    broker: BrokerSettings,
    settings: SupervisorSettings,
    announce: Callable[[], Awaitable[None]],
) -> int:
    """Keep the workers of `settings` running; returns the exit code. `announce` is awaited first.

    With `settings.reloads`, replaces them when a Python file below their folder changes.
    """
    return asyncio.run(_supervise(Supervisor(broker, settings), settings, announce))


async def _supervise(
    supervisor: Supervisor, settings: SupervisorSettings, announce: Callable[[], Awaitable[None]]
) -> int:
    loop = asyncio.get_running_loop()
    hang_ups = HangUps()

    def stop(signum: int) -> None:
        if not hang_ups.is_echo(signum):
            supervisor.stop()

    for signum in stop_signals():
        loop.add_signal_handler(signum, stop, signum)
    await announce()
    ended = asyncio.Event()
    watching = None
    if settings.reloads:
        watching = asyncio.create_task(_watch(supervisor, settings.directory, ended))
    try:
        return OK if await supervisor.run() else ERROR
    finally:
        ended.set()
        if watching is not None:
            await watching


def check_reload() -> None:
    """Raise `ConfigError` when watchfiles, which `--reload` needs, is not installed."""
    try:
        import watchfiles  # noqa: F401 # pyright: ignore[reportUnusedImport]
    except ImportError:
        raise ConfigError(f"--reload needs watchfiles: run {install_command('reload')}") from None


async def _watch(supervisor: Supervisor, here: Path, ended: asyncio.Event) -> None:
    from watchfiles import PythonFilter, awatch  # pyright: ignore[reportUnknownVariableType]

    _log.info("watching the Python files in %s", here)
    async for changes in awatch(here, watch_filter=PythonFilter(), stop_event=ended):
        files = sorted({Path(path).name for _, path in changes})
        _log.info("%s changed; replacing the workers", ", ".join(files[:5]))
        supervisor.reload()
