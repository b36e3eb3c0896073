"""The names inside the directory of an embedded server, and its locks.

The keeper imports this module: standard library only, and nothing heavy from it.
"""

from __future__ import annotations

import os
import sys

if sys.platform != "win32":
    import fcntl

__all__ = [
    "CLOSING",
    "DOOR_LOCK",
    "IGNORE",
    "KEEPER_LOCK",
    "LOG",
    "OLD_LOG",
    "PID",
    "SERVER_LOCK",
    "SOCKET",
    "release",
    "try_lock",
]

SOCKET = "valkey.sock"
#: The socket's name while the keeper makes sure that nobody is coming in.
CLOSING = "valkey.sock.closing"
#: Held by whoever starts, keeps or stops the server.
KEEPER_LOCK = "keeper.lock"
#: Held by the server process itself, for as long as it lives.
SERVER_LOCK = "server.lock"
#: Held shared while an opener asks whether the server is up, alone while the keeper closes.
DOOR_LOCK = "door.lock"
LOG = "server.log"
OLD_LOG = "server.log.1"
PID = "valkey.pid"
IGNORE = ".gitignore"


def try_lock(path: str, *, shared: bool = False) -> int | None:
    """Take the lock at `path` without waiting: a descriptor that holds it, or None if it is held.

    A `shared` one is refused only while somebody holds it alone.

    The lock belongs to the open file, not to the process: a child that inherits the descriptor
    holds it as well, and the kernel drops it with the last of them. Raises OSError where the file
    system knows no locks.
    """
    how = fcntl.LOCK_SH if shared else fcntl.LOCK_EX
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        fcntl.flock(descriptor, how | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        return None
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def release(descriptor: int) -> None:
    """Give the lock up for every process that shares it, and close the descriptor.

    Closing alone would not do: a process forked at the wrong moment may have a copy.
    """
    fcntl.flock(descriptor, fcntl.LOCK_UN)
    os.close(descriptor)
