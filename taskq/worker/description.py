"""What a worker tells of itself with each beat, for `taskq status`."""

from __future__ import annotations

import os
import socket
from collections.abc import Sequence

import msgpack

from taskq.worker.settings import WorkerSettings

__all__ = ["describe"]


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
    """The description as bytes.

    `queues` are those it listens to; `born` is in seconds since the epoch, `memory` in bytes.
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
