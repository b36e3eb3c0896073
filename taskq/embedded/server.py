"""Opening, asking and stopping the embedded server of a private directory."""

from __future__ import annotations

import enum
import errno
import os
import stat
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from taskq.core.errors import ConfigError, EmbeddedServerError
from taskq.core.liveness import (
    EMBEDDED_ANSWER_SECONDS,
    EMBEDDED_LOAD_SECONDS,
    EMBEDDED_START_SECONDS,
)
from taskq.core.peer import ForeignPeer
from taskq.embedded import files as layout
from taskq.embedded import launch, wire
from taskq.embedded.files import find_binary

__all__ = ["EmbeddedServer", "check_directory", "create_directory"]

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


#: Seconds between two looks at a server that is starting.
_PAUSE = 0.005
#: Keepers an opener starts before it believes that the server cannot run. The first may have met
#: a server that was just leaving.
_MOST_KEEPERS = 3
#: No file can be opened, wherever it is.
_NO_FILES = frozenset({errno.EMFILE, errno.ENFILE})
#: What file systems of other machines say.
_NO_LOCKS = frozenset({errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.EINVAL, errno.EIO})
#: The variables that keeper and server are given.
_NEEDED = (
    *("PATH", "HOME", "TMPDIR", "TZ", "LANG", "LC_ALL", "LC_COLLATE", "LC_CTYPE"),
    *("LD_LIBRARY_PATH", "LD_PRELOAD", "DYLD_LIBRARY_PATH", "DYLD_FALLBACK_LIBRARY_PATH"),
)
_LOG_LIMIT = 1 << 20
_LOG_LINES = 12


class _State(enum.Enum):
    ABSENT = enum.auto()
    LOADING = enum.auto()
    READY = enum.auto()


@dataclass(frozen=True)
class EmbeddedServer:
    """The server of one directory, shared by every process that opens the same directory.

    It starts on first use, outlives the process that started it while others are connected, and
    stops by itself when the last client has gone. This object holds no resource: it may be shared
    between threads, copied and carried across a fork.

    Arguments:
        directory: where socket, data and log are. Created if missing (its parent must exist), for
            the owner alone. A relative one is taken from the current directory now.
        appendfsync: when data reaches the disk: `"everysec"` (the default: a crash of the machine
            loses about the last second, and one of the server what it acknowledged during a slow
            sync, up to 2 s) or `"always"` (before every answer: neither loses anything, at about
            a third of the rate). A running server is made stricter, never laxer.
        idle_grace: seconds without a client until the server stops. Default 2. Counts for the one
            who starts the server.

    Raises ConfigError for an option out of range.

    Example:
        >>> server = EmbeddedServer(Path(".taskq"))
        >>> url = f"unix://{server.ensure()}"
    """

    directory: Path
    appendfsync: Literal["everysec", "always"] = "everysec"
    idle_grace: float = 2.0

    def __post_init__(self) -> None:
        object.__setattr__(self, "directory", Path(self.directory).expanduser().absolute())
        if self.appendfsync not in ("everysec", "always"):
            raise ConfigError(
                f'appendfsync={self.appendfsync!r} is unknown: say "everysec" or "always".'
            )
        if not 0 < self.idle_grace < float("inf"):
            raise ConfigError(
                f"idle_grace={self.idle_grace!r} is not a positive number of seconds."
            )

    @property
    def socket(self) -> Path:
        """The path of the server's socket, whether it is up or not."""
        return self.directory / layout.SOCKET

    def ensure(self) -> Path:
        """Return the path of a socket that answers, starting or adopting the server if need be.

        Idempotent, and cheap when the server is up (under a millisecond): call it before every
        connect. The caller then has the idle grace to connect. It blocks while the server starts
        (under 0.1 s, or longer with much data), at most 10 s, and 60 s for a server that is
        reading its data; asynchronous code calls it in a thread.

        Raises EmbeddedServerError when there is no binary for this machine, the directory cannot
        be used, or the server does not come up; the message says what to do.
        """
        began = time.monotonic()
        keepers = 0
        while True:
            # Every time: somebody may delete it while we wait.
            self._prepare_directory()
            state = self._state()
            keeper_lock = self._try_lock(layout.KEEPER_LOCK)
            if keeper_lock is not None:
                if keepers == _MOST_KEEPERS:
                    layout.release(keeper_lock)
                    raise self._failure("did not start")
                self._start_keeper(keeper_lock)
                keepers += 1
            if state is _State.READY:
                return self.socket
            limit = EMBEDDED_LOAD_SECONDS if state is _State.LOADING else EMBEDDED_START_SECONDS
            if time.monotonic() - began > limit:
                raise self._failure(f"did not answer within {limit:g} s")
            time.sleep(_PAUSE)

    def stop(self) -> None:
        """Stop the server now, whoever is connected. It writes and syncs everything first.

        Returns when it has gone (another process may have started the next one by then), and at
        once when none runs. The data stays.

        Raises EmbeddedServerError when it has not gone within 10 s.
        """
        try:
            check_directory(self.directory)
        except FileNotFoundError:
            return
        began = time.monotonic()
        told: int | None = None
        while not self._at_rest():
            if told is None:
                told = self._shut_down()
            elif self.pid() not in (None, told):
                return
            if time.monotonic() - began > EMBEDDED_START_SECONDS:
                raise self._failure(f"did not stop within {EMBEDDED_START_SECONDS:g} s")
            time.sleep(_PAUSE)

    def pid(self) -> int | None:
        """The server's process id, by its own account; None when it does not answer."""
        try:
            with wire.connect(str(self.socket), EMBEDDED_ANSWER_SECONDS) as connection:
                return int(wire.info(connection)["process_id"])
        except (OSError, wire.ErrorReply):
            return None

    def _prepare_directory(self) -> None:
        if sys.platform == "win32":
            raise EmbeddedServerError(
                "The embedded server does not run on Windows. "
                "Set TASKQ_URL to the URL of a running server."
            )
        try:
            check_directory(self.directory)
        except FileNotFoundError:
            # Where no server can run, no directory is left behind.
            find_binary()
            create_directory(self.directory)
            check_directory(self.directory)

    def _state(self) -> _State:
        # Whoever is told that the server is up has been counted by the keeper: between the two
        # it cannot begin to close.
        door = self._try_lock(layout.DOOR_LOCK, shared=True)
        if door is None:
            return _State.ABSENT
        try:
            return self._ping()
        finally:
            layout.release(door)

    def _ping(self) -> _State:
        try:
            with wire.connect(str(self.socket), EMBEDDED_ANSWER_SECONDS) as connection:
                wire.ask(connection, "PING")
                if self.appendfsync == "always":
                    wire.ask(connection, "CONFIG", "SET", "appendfsync", "always")
        except wire.ErrorReply as error:
            # Any other error, such as BUSY, comes from a server that serves.
            return _State.LOADING if str(error).startswith("LOADING") else _State.READY
        except ForeignPeer as error:
            raise EmbeddedServerError(
                f"{error}. Set TASKQ_DIR to a directory below parents that only you may rename, or "
                "TASKQ_URL to the URL of a running server."
            ) from error
        except OSError as error:
            if error.errno in _NO_FILES:
                raise _no_files(self.directory, error) from error
            return _State.ABSENT
        return _State.READY

    def _try_lock(self, name: str, *, shared: bool = False) -> int | None:
        try:
            return layout.try_lock(str(self.directory / name), shared=shared)
        except OSError as error:
            if error.errno in _NO_FILES:
                raise _no_files(self.directory, error) from error
            cure = "The directory must be on a local file system: set TASKQ_DIR to one that is"
            if error.errno not in _NO_LOCKS:
                cure = "Set TASKQ_DIR to another directory, or TASKQ_URL to a running server's URL"
            raise EmbeddedServerError(
                f"{self.directory / name} cannot be locked: {error.strerror}. {cure}."
            ) from error

    def _start_keeper(self, keeper_lock: int) -> None:
        """Hand the lock over to a new keeper, which starts or adopts the server."""
        try:
            words = [_python(), "-I", "-S", launch.__file__, str(keeper_lock), str(find_binary())]
            words += [self.appendfsync, repr(self.idle_grace), str(self.directory)]
            log = self._open_log()
            try:
                starter = subprocess.Popen(  # noqa: S603 - our own interpreter and file
                    words,
                    cwd=self.directory,
                    env=_environment(),
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    pass_fds=(keeper_lock,),
                    start_new_session=True,
                )
            finally:
                os.close(log)
        except BaseException:
            layout.release(keeper_lock)
            raise
        try:
            # It forks the keeper and ends at once, so that no child is left to this process.
            status = starter.wait()
        finally:
            # Closed, not released: the lock is the keeper's now.
            os.close(keeper_lock)
        if status != 0:
            raise self._failure(f"has no keeper: it ended with status {status}")

    def _open_log(self) -> int:
        path = self.directory / layout.LOG
        try:
            if path.stat().st_size > _LOG_LIMIT:
                path.replace(self.directory / layout.OLD_LOG)
        except FileNotFoundError:
            pass
        return os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)

    def _shut_down(self) -> int | None:
        """Ask the server to stop: its pid, or None when nobody was there to be asked."""
        told = self.pid()
        try:
            with wire.connect(str(self.socket), EMBEDDED_START_SECONDS) as connection:
                wire.ask(connection, "SHUTDOWN")
        except wire.ErrorReply as error:
            raise EmbeddedServerError(
                f"The embedded server in {self.directory} refuses to stop: {error}."
            ) from error
        except OSError:
            pass  # it goes: a server that stops closes the connection instead of answering
        return told

    def _at_rest(self) -> bool:
        """Whether there is neither a keeper nor a server."""
        for name in (layout.KEEPER_LOCK, layout.SERVER_LOCK):
            lock = self._try_lock(name)
            if lock is None:
                return False
            layout.release(lock)
        return True

    def _failure(self, what: str) -> EmbeddedServerError:
        log, pid = (self._read(name) for name in (layout.LOG, layout.PID))
        tail = "\n".join(f"    {line}" for line in log.splitlines()[-_LOG_LINES:])
        process = f" (last known process id: {pid.strip()})" if pid else ""
        return EmbeddedServerError(
            f"The embedded server in {self.directory} {what}{process}. If its data is damaged, "
            "move the directory away to start with an empty one; or set TASKQ_URL to the URL of a "
            f"running server. The end of {layout.LOG} there:\n{tail or '    (nothing)'}"
        )

    def _read(self, name: str) -> str:
        try:
            return (self.directory / name).read_text(errors="replace")
        except OSError:
            return ""


def _no_files(directory: Path, error: OSError) -> EmbeddedServerError:
    return EmbeddedServerError(
        f"The embedded server in {directory} cannot be asked: {error.strerror}. Close files and "
        "sockets that this process no longer needs, or raise the limit (ulimit -n)."
    )


def _environment() -> dict[str, str]:
    """What a program needs to start; keys and passwords stay with their owners."""
    return {name: os.environ[name] for name in _NEEDED if name in os.environ}


def _python() -> str:
    # A frozen application is its own sys.executable: started again it would be the application.
    if not sys.executable or getattr(sys, "frozen", False):
        raise EmbeddedServerError(
            "The embedded server needs a Python interpreter to start, and this program has none "
            "of its own. Set TASKQ_URL to the URL of a running server."
        )
    return sys.executable
