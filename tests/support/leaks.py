"""What a test must not leave behind: keys without TTL, processes, asyncio tasks, sockets."""

from __future__ import annotations

import asyncio
import contextlib
import os
from pathlib import Path

import redis

__all__ = ["children", "keys_left", "open_sockets", "remove_keys", "tasks_left"]

_QUEUE_KEYS = ("lanes", "q:")
"""A queue's list and its (empty) streams live as long as the queue."""


def keys_left(client: redis.Redis, namespace: str) -> list[str]:
    """Keys of the namespace that would stay for ever."""
    prefix = f"{{{namespace}}}:"
    left: list[str] = []
    for key in client.scan_iter(match=prefix.replace("[", "\\[") + "*", count=1000):
        name = key.decode().removeprefix(prefix)
        if name.startswith("q:"):
            if client.xlen(key):
                left.append(f"{name} ({client.xlen(key)} entries)")
        elif name not in _QUEUE_KEYS and client.pttl(key) == -1:
            left.append(name)
    return sorted(left)


def remove_keys(client: redis.Redis, namespace: str) -> None:
    """Remove all keys of the namespace, also those that live until they are removed."""
    for key in client.scan_iter(match=f"{{{namespace}}}:*", count=1000):
        client.unlink(key)


def children() -> set[int]:
    """Pids of this process's children."""
    found: set[int] = set()
    for task in Path("/proc/self/task").iterdir():
        # A thread may end while it is looked at.
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            found.update(int(pid) for pid in (task / "children").read_text().split())
    return found


def open_sockets() -> int:
    """How many sockets this process has open."""
    count = 0
    for fd in os.listdir("/proc/self/fd"):
        try:
            count += os.readlink(f"/proc/self/fd/{fd}").startswith("socket:")
        except OSError:
            continue
    return count


def tasks_left() -> list[str]:
    """Asyncio tasks of the running loop other than the current one."""
    current = asyncio.current_task()
    return [task.get_name() for task in asyncio.all_tasks() if task is not current]
