"""The directory of an embedded server: made private, and refused when it is not."""

from __future__ import annotations

import os
import stat
import sys
from pathlib import Path

from taskq.core.errors import EmbeddedServerError
from taskq.embedded import layout

__all__ = ["check_directory", "create_directory"]

#: Bytes in a socket's path, without the closing zero: the kernel's limit.
LONGEST_SOCKET_PATH = 103 if sys.platform == "darwin" else 107

_ELSEWHERE = "or set TASKQ_DIR to another directory, or TASKQ_URL to the URL of a running server"


def create_directory(directory: Path) -> None:
    """Create `directory` for its owner alone; one that exists is left as it is.

    Raises EmbeddedServerError when that is not possible.
    """
    try:
        directory.mkdir(mode=0o700)
    except FileExistsError:
        return
    except OSError as error:
        raise EmbeddedServerError(
            f"The embedded server's directory {directory} cannot be created: {error.strerror}. "
            f"Create {directory.parent} and make it writable, {_ELSEWHERE}."
        ) from error
    ignore = os.open(directory / layout.IGNORE, os.O_WRONLY | os.O_CREAT, 0o600)
    os.write(ignore, b"*\n")
    os.close(ignore)


def check_directory(directory: Path) -> None:
    """Refuse a directory that is not ours alone, or that cannot hold a server.

    It is never changed: whoever made it so may have had a reason.

    Raises FileNotFoundError when there is none, EmbeddedServerError when it is refused.
    """
    _check_length(directory)
    try:
        status = os.lstat(directory)
    except FileNotFoundError:
        raise
    except OSError as error:
        raise EmbeddedServerError(
            f"The embedded server's directory {directory} cannot be read: {error.strerror}. "
            f"Make its parents readable, {_ELSEWHERE}."
        ) from error
    if stat.S_ISLNK(status.st_mode):
        _refuse(directory, "is a symbolic link", "Name the directory itself")
    if not stat.S_ISDIR(status.st_mode):
        _refuse(directory, "is not a directory", "Remove it")
    if status.st_uid != os.geteuid():
        owner = f"belongs to the user with uid {status.st_uid}, not to yours ({os.geteuid()})"
        _refuse(directory, owner, "Run as that user")
    if status.st_mode & 0o077:
        mode = f"is open to other users (mode {stat.S_IMODE(status.st_mode):04o})"
        _refuse(directory, mode, f'Type chmod 700 "{directory}"')
    # The mode is read as well as tried: for root everything seems writable.
    if status.st_mode & 0o700 != 0o700 or not os.access(directory, os.R_OK | os.W_OK | os.X_OK):
        _refuse(directory, "is read-only", f'Type chmod 700 "{directory}" (or remount it writable)')


def _check_length(directory: Path) -> None:
    length = len(os.fsencode(directory / layout.SOCKET))
    if length > LONGEST_SOCKET_PATH:
        raise EmbeddedServerError(
            f"The path of the embedded server's socket, {directory / layout.SOCKET}, is too long: "
            f"{length} bytes, and the system allows {LONGEST_SOCKET_PATH}. "
            "Set TASKQ_DIR to a directory with a shorter path."
        )


def _refuse(directory: Path, why: str, cure: str) -> None:
    raise EmbeddedServerError(
        f"The embedded server's directory {directory} {why}. {cure}, {_ELSEWHERE}."
    )
