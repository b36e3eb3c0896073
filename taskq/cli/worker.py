"""`taskq worker`: run jobs.

One worker runs in the command's own process; when too many of its threads have outlived their
timeouts, it drains and restarts under the same pid. With `-w` above 1, `--reload`, `--max-jobs` or
`--max-memory`, a supervisor, which runs no jobs, watches and replaces the workers.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, cast

import typer

import taskq
from taskq.app import registry_of, settings_of
from taskq.cli.exits import OK
from taskq.cli.init import leave_orphans_to_init
from taskq.cli.loading import Loaded, load_app
from taskq.cli.logs import LogFormat, LogLevel, configure_logs
from taskq.cli.options import PROCESS, Banner, Format, Level, Target, duration, size
from taskq.cli.serving import LoopFactory, again_command, loop_factory, serve
from taskq.cli.supervising import check_reload, supervise
from taskq.core.ids import check_name, new_id, process_name
from taskq.worker.settings import WorkerSettings, WorkerSettingValues
from taskq.worker.supervisor import SupervisorSettings
from taskq.worker.worker import Worker
from taskq.worker.worker_process import SupervisorLink

__all__ = ["worker"]

_WORK, _LIMITS = "Work", "Replacing workers"


@dataclass(frozen=True, slots=True, kw_only=True)
class _Command:
    """The options of the command, besides the settings of each worker."""

    workers: int
    reload: bool
    limited: bool
    uvloop: bool
    log_format: LogFormat
    name: str | None

    @property
    def needs_supervisor(self) -> bool:
        return self.workers > 1 or self.reload or self.limited


def worker(
    target: Target = None,
    queue: Annotated[
        list[str] | None,
        typer.Option(
            "-q",
            "--queue",
            envvar="TASKQ_QUEUES",
            metavar="NAME",
            rich_help_panel=_WORK,
            help="A queue to serve; repeat it, or use a,b. Default: the queues of all tasks.",
        ),
    ] = None,
    concurrency: Annotated[
        int,
        typer.Option(
            "-c",
            "--concurrency",
            envvar="TASKQ_CONCURRENCY",
            metavar="N",
            min=1,
            rich_help_panel=_WORK,
            help="Jobs that run at once in each worker.",
        ),
    ] = 100,
    threads: Annotated[
        int,
        typer.Option(
            envvar="TASKQ_THREADS",
            metavar="N",
            min=1,
            rich_help_panel=_WORK,
            help="At most so many of them in threads (tasks that are a plain def).",
        ),
    ] = 40,
    processes: Annotated[
        int | None,
        typer.Option(
            envvar="TASKQ_PROCESSES",
            metavar="N",
            min=1,
            rich_help_panel=_WORK,
            help="At most so many in processes (executor='process'). Default: one per core.",
        ),
    ] = None,
    low_share: Annotated[
        float,
        typer.Option(
            envvar="TASKQ_LOW_SHARE",
            metavar="SHARE",
            min=0,
            max=1,
            rich_help_panel=_WORK,
            help="The share of fetches that serve the lowest priorities first, such as 0.1.",
        ),
    ] = 0.0,
    burst: Annotated[
        bool,
        typer.Option(
            "--burst",
            envvar="TASKQ_BURST",
            rich_help_panel=_WORK,
            help="Exit when nothing is due.",
        ),
    ] = False,
    no_scheduler: Annotated[
        bool,
        typer.Option(
            "--no-scheduler",
            envvar="TASKQ_NO_SCHEDULER",
            rich_help_panel=_WORK,
            help="Do not fire schedules; other workers or taskq scheduler do.",
        ),
    ] = False,
    max_jobs: Annotated[
        int | None,
        typer.Option(
            envvar="TASKQ_MAX_JOBS",
            metavar="N",
            min=1,
            rich_help_panel=_LIMITS,
            help="Replace a worker after so many jobs.",
        ),
    ] = None,
    max_memory: Annotated[
        int | None,
        typer.Option(
            envvar="TASKQ_MAX_MEMORY",
            metavar="SIZE",
            parser=size,
            rich_help_panel=_LIMITS,
            help="Replace a worker that uses more memory, such as 500MB.",
        ),
    ] = None,
    reload: Annotated[
        bool,
        typer.Option(
            "--reload",
            envvar="TASKQ_RELOAD",
            rich_help_panel=_LIMITS,
            help="Replace workers when a Python file here changes; jobs get 5 s. For development.",
        ),
    ] = False,
    workers: Annotated[
        int,
        typer.Option(
            "-w",
            "--workers",
            envvar="TASKQ_WORKERS",
            metavar="N",
            min=1,
            rich_help_panel=PROCESS,
            help="Worker processes; with more than one, a supervisor restarts those that die.",
        ),
    ] = 1,
    grace: Annotated[
        float,
        typer.Option(
            envvar="TASKQ_GRACE",
            metavar="DURATION",
            parser=duration,
            show_default=False,
            rich_help_panel=PROCESS,
            help="The time in which running jobs may finish on stop; the rest is handed back. "
            "Default: 30s.",
        ),
    ] = 30.0,
    name: Annotated[
        str | None,
        typer.Option(
            envvar="TASKQ_WORKER_NAME",
            metavar="NAME",
            rich_help_panel=PROCESS,
            help="The first part of workers' names. Default: host and pid.",
        ),
    ] = None,
    uvloop: Annotated[
        bool,
        typer.Option(
            envvar="TASKQ_UVLOOP",
            rich_help_panel=PROCESS,
            help="Use uvloop if it is installed.",
        ),
    ] = True,
    log_level: Level = LogLevel.INFO,
    log_format: Format = LogFormat.TEXT,
    log_jobs: Annotated[
        bool,
        typer.Option(
            "--log-jobs",
            envvar="TASKQ_LOG_JOBS",
            rich_help_panel=PROCESS,
            help="Log a line at info for each attempt that ends, not only for failures.",
        ),
    ] = False,
) -> None:
    """Run jobs until stopped.

    On SIGTERM, Ctrl-C or a closed terminal, running jobs may finish within the grace; a second
    signal hands them back at once.

    Example: taskq worker shop.tasks:q -q email -q default -c 50 -w 4
    """
    leave_orphans_to_init()
    settings = {
        "concurrency": concurrency,
        "threads": threads,
        "processes": processes,
        "grace": grace,
        "burst": burst,
        "low_share": low_share,
        "scheduler": not no_scheduler,
        "max_jobs": max_jobs,
        "max_memory": max_memory,
    }
    command = _Command(
        workers=workers,
        reload=reload,
        limited=max_jobs is not None or max_memory is not None,
        uvloop=uvloop,
        log_format=log_format,
        name=name,
    )
    supervised = SupervisorLink.from_environment()
    configure_logs(log_level, log_format, with_pid=command.needs_supervisor, jobs=log_jobs)
    # Before the application is imported, which may change the directory.
    directory = Path.cwd()
    loaded = load_app(target)
    given = {key: value for key, value in settings.items() if value is not None}
    places = {"name": _name(command, supervised), "directory": directory}
    chosen = cast("WorkerSettingValues", given | places)
    made = loaded.app.worker(_queues(queue), **chosen)
    if supervised is None and command.needs_supervisor:
        code = _supervise(command, loaded, made.settings, directory)
    else:
        code = _serve(command, loaded, made, supervised, directory)
    if code != OK:
        raise typer.Exit(code)


def _queues(given: list[str] | None) -> list[str] | None:
    names = [name.strip() for text in given or [] for name in text.split(",")]
    return list(dict.fromkeys(name for name in names if name)) or None


def _name(command: _Command, supervised: SupervisorLink | None) -> str | None:
    """A unique name: the jobs of a dead worker must not look like those of its successor."""
    if supervised is not None:
        return supervised.name
    return f"{check_name('worker', command.name)}-{new_id()[-8:]}" if command.name else None


def _serve(
    command: _Command,
    loaded: Loaded,
    made: Worker,
    supervised: SupervisorLink | None,
    directory: Path,
) -> int:
    factory = loop_factory(command.uvloop)
    made.command = again_command(directory)
    if supervised is not None and supervised.suspects:
        made.serve_suspects()

    async def announce() -> None:
        if supervised is None:
            await _announce(command, loaded, made.settings, factory)

    return serve(made, factory, supervised, announce, directory)


def _supervise(command: _Command, loaded: Loaded, settings: WorkerSettings, directory: Path) -> int:
    if command.reload:
        check_reload()
    plan = SupervisorSettings(
        command=again_command(directory),
        directory=directory,
        workers=command.workers,
        name=settings.name or process_name(),
        grace=settings.grace,
        burst=settings.burst,
        reloads=command.reload,
    )

    async def announce() -> None:
        await _announce(command, loaded, settings, loop_factory(command.uvloop))

    return supervise(settings_of(loaded.app), plan, announce)


async def _announce(
    command: _Command, loaded: Loaded, settings: WorkerSettings, factory: LoopFactory
) -> None:
    app = loaded.app
    Banner(
        version=taskq.__version__,
        target=loaded.target,
        server=str(await settings_of(app).locate()),
        namespace=settings_of(app).keys.namespace,
        signed=settings_of(app).signing.enabled,
        queues=tuple(settings.queues),
        tasks=tuple(registry_of(app).names()),
        concurrency=settings.concurrency,
        threads=settings.threads,
        executor_processes=settings.processes,
        workers=command.workers,
        loop="asyncio" if factory is None else "uvloop",
        pid=os.getpid(),
        grace=settings.grace,
    ).show(command.log_format)
