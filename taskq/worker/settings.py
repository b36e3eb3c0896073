"""A worker's settings, its counters, and the description it sends with each heartbeat."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Final, TypedDict, cast

import msgpack

from taskq.core.durations import Duration, seconds
from taskq.core.errors import ConfigError
from taskq.core.ids import check_name
from taskq.core.options import flag

__all__ = ["Tally", "WorkerSettingValues", "WorkerSettings", "describe"]


def describe(
    settings: WorkerSettings,
    *,
    queues: Sequence[str],
    running: int,
    finished: int,
    born: float,
    memory: int,
    stopping: bool,
) -> bytes:
    """The description of a worker, packed.

    `queues` are those it serves; `born` is in seconds since the epoch, `memory` in bytes.
    """
    return msgpack.packb(
        {
            "host": socket.gethostname(),
            "pid": os.getpid(),
            "queues": list(queues),
            "concurrency": settings.concurrency,
            "running": running,
            "finished": finished,
            "started_at": born,
            "rss": memory,
            "stopping": stopping,
        }
    )


@dataclass(slots=True)
class Tally:
    """Counters of one worker since it started.

    `fenced` counts outcomes that the server refused because the job had been given to another
    worker, `adopted` jobs that were recovered after the reply that delivered them was lost,
    `untrusted` jobs that were not run because they were unsigned or forged, and `misdelivered`
    jobs that were handed back because their queue is not served here.
    """

    started: int = 0
    succeeded: int = 0
    failed: int = 0
    retried: int = 0
    cancelled: int = 0
    released: int = 0
    fenced: int = 0
    lost: int = 0
    adopted: int = 0
    reaped: int = 0
    leaked: int = 0
    untrusted: int = 0
    misdelivered: int = 0

    @property
    def finished(self) -> int:
        """Attempts that ended here, with any outcome."""
        return self.succeeded + self.failed + self.retried + self.cancelled + self.released


_MOST: Final = 1_000_000
"""No process runs more jobs at once; a larger number is a mistake."""


class WorkerSettingValues(TypedDict, total=False):
    """The keywords of `q.worker(...)`; see `WorkerSettings` for their meaning and defaults."""

    concurrency: int
    threads: int
    processes: int
    grace: Duration
    burst: bool
    low_share: float
    max_jobs: int | None
    max_memory: int | None
    leak_limit: int
    unknown_limit: int
    name: str | None
    scheduler: bool
    directory: str | Path | None


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerSettings:
    """Which queues a worker serves, and how.

    `queues`: names of queues; jobs of equal priority are taken from them in turn. `concurrency`:
    how many jobs run at once. `threads`, `processes`: how many of these may run in threads and in
    processes. `grace`: seconds that running jobs get when the worker stops. `burst`: stop when
    nothing is due. `low_share`: the share of fetches, from 0 to 1, that serve the lowest priorities
    first, so that they do not starve; 0 means strict priorities. `max_jobs`: stop after this many
    attempts. `max_memory`: stop when resident memory exceeds this many bytes. `leak_limit`: stop
    when this many threads or coroutines have outlived their timeout. `unknown_limit`: how often a
    job whose task is not registered is handed back before it fails. `name`: the worker's name,
    unique among living workers; None generates one. `scheduler`: stand by to fire schedules; never
    with `burst`. `directory`: the working directory of process tasks; None for the directory in
    which the worker starts.

    Raises `ConfigError` for invalid settings.
    """

    queues: Sequence[str] = ("default",)
    concurrency: int = 100
    threads: int = 40
    processes: int = max(1, os.cpu_count() or 1)
    grace: float = 30.0
    burst: bool = False
    low_share: float = 0.0
    max_jobs: int | None = None
    max_memory: int | None = None
    leak_limit: int = 20
    unknown_limit: int = 10
    name: str | None = None
    scheduler: bool = True
    directory: str | Path | None = None

    def __post_init__(self) -> None:
        for name, check in _CHECKS.items():
            object.__setattr__(self, name, check(name, getattr(self, name)))


def _queues(name: str, value: Any) -> tuple[str, ...]:
    listed = isinstance(value, Iterable) and not isinstance(value, (str, bytes, Mapping))
    queues = tuple(cast("Iterable[Any]", value)) if listed else ()
    if not queues:
        raise ConfigError(f"{name}={value!r}: use a list of names, such as ['default']")
    return tuple(dict.fromkeys(check_name("queue", queue) for queue in queues))


def _whole(name: str, value: Any, *, most: int | None = None) -> int:
    if isinstance(value, bool) or not isinstance(value, int):
        raise ConfigError(f"{name}={value!r}: use a whole number")
    if value < 1:
        raise ConfigError(f"{name}={value!r}: use 1 or more")
    if most is not None and value > most:
        raise ConfigError(f"{name}={value!r}: use at most {most:,}")
    return value


def _limit(name: str, value: Any) -> int | None:
    return None if value is None else _whole(name, value)


def _share(name: str, value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value <= 1:
        raise ConfigError(f"{name}={value!r}: use a share from 0 to 1")
    return value


def _name(_: str, value: Any) -> str | None:
    return None if value is None else check_name("worker name", value)


def _directory(name: str, value: Any) -> str | None:
    if value is None:
        return None
    if not isinstance(value, (str, Path)) or not Path(value).is_dir():
        raise ConfigError(f"{name}={value!r}: use the path of a directory that exists")
    return str(Path(value).absolute())


_CHECKS: dict[str, Callable[[str, Any], Any]] = {
    "queues": _queues,
    "concurrency": partial(_whole, most=_MOST),
    "threads": partial(_whole, most=_MOST),
    "processes": partial(_whole, most=_MOST),
    "grace": seconds,
    "burst": flag,
    "low_share": _share,
    "max_jobs": _limit,
    "max_memory": _limit,
    "leak_limit": partial(_whole, most=_MOST),
    "unknown_limit": partial(_whole, most=_MOST),
    "name": _name,
    "scheduler": flag,
    "directory": _directory,
}
