"""Opens, checks and stops the embedded server of a private directory."""

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

__all__ = ["EmbeddedServer"]

#: The kernel's limit for a socket's path, in bytes without the terminating zero.
LONGEST_SOCKET_PATH = 103 if sys.platform == "darwin" else 107

_ELSEWHERE = "or set TASKQ_DIR to another directory, or TASKQ_URL to the URL of a running server"


def _create_directory(directory: Path) -> None:
    """Create `directory` with access for its owner only; an existing one is left as it is.

    Raises EmbeddedServerError if that fails.
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


def _check_directory(directory: Path) -> None:
    """Refuse a directory that others may access, or that cannot hold a server.

    The directory is never changed: its permissions may be intended.

    Raises FileNotFoundError if it does not exist, EmbeddedServerError if it is refused.
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
        owner = f"belongs to the user with uid {status.st_uid}, not to you (uid {os.geteuid()})"
        _refuse(directory, owner, "Run as that user")
    if status.st_mode & 0o077:
        mode = f"is open to other users (mode {stat.S_IMODE(status.st_mode):04o})"
        _refuse(directory, mode, f'Run chmod 700 "{directory}"')
    # Mode and access are both checked: for root everything seems accessible.
    if status.st_mode & 0o700 != 0o700 or not os.access(directory, os.R_OK | os.W_OK | os.X_OK):
        _refuse(directory, "is read-only", f'Run chmod 700 "{directory}" (or remount it writable)')


def _check_length(directory: Path) -> None:
    length = len(os.fsencode(directory / layout.SOCKET))
    if length > LONGEST_SOCKET_PATH:
        raise EmbeddedServerError(
            f"The path of the embedded server's socket, {directory / layout.SOCKET}, is too long: "
            f"{length} bytes, but the system allows {LONGEST_SOCKET_PATH}. "
            "Set TASKQ_DIR to a directory with a shorter path."
        )


def _refuse(directory: Path, problem: str, remedy: str) -> None:
    raise EmbeddedServerError(
        f"The embedded server's directory {directory} {problem}. {remedy}, {_ELSEWHERE}."
    )


#: Seconds between two checks of a server that is starting or stopping.
_PAUSE = 0.005
#: How many keepers an opener starts before it gives up. The first may have met a server that was
#: just ending.
_MAX_KEEPERS = 3
#: Too many open files, of this process or of the system.
_NO_FILES = frozenset({errno.EMFILE, errno.ENFILE})
#: The errors of file systems without locks, such as network file systems.
_NO_LOCKS = frozenset({errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.EINVAL, errno.EIO})
#: The environment variables that keeper and server inherit.
_ENVIRONMENT = (
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
    stops by itself when the last client has disconnected. This object holds no resources: it may be
    shared between threads, copied and used after a fork.

    Arguments:
        directory: where socket, data and log are. Created if missing (its parent must exist), with
            access for its owner only. A relative path starts from the current directory now.
        appendfsync: when data is written to disk: `"everysec"` (the default: a crash of the machine
            loses about the last second, a crash of the server what it acknowledged during a slow
            sync, up to 2 s) or `"always"` (before every answer: no crash loses anything, at about
            a third of the rate). A running server is only ever changed to `"always"`.
        idle_grace: seconds without a client until the server stops. Default 2. The process that
            starts the server decides.

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
                f'appendfsync={self.appendfsync!r} is unknown: use "everysec" or "always".'
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
        """Return the path of a socket that answers, starting or adopting the server if necessary.

        Idempotent, and cheap while the server is up (under a millisecond): call it before every
        connect. The caller then has the idle grace to connect. It blocks while the server starts
        (under 0.1 s, longer with much data), for 10 s at most, or 60 s for a server that is loading
        its data; asynchronous code calls it in a thread.

        Raises EmbeddedServerError if there is no binary for this machine, the directory cannot be
        used, or the server does not start; the message says what to do.
        """
        started_at = time.monotonic()
        keepers = 0
        while True:
            # Each time, because the directory may be deleted meanwhile.
            self._prepare_directory()
            state = self._state()
            keeper_lock = self._try_lock(layout.KEEPER_LOCK)
            if keeper_lock is not None:
                if keepers == _MAX_KEEPERS:
                    layout.release(keeper_lock)
                    raise self._failure("did not start")
                self._start_keeper(keeper_lock)
                keepers += 1
            if state is _State.READY:
                return self.socket
            limit = EMBEDDED_LOAD_SECONDS if state is _State.LOADING else EMBEDDED_START_SECONDS
            if time.monotonic() - started_at > limit:
                raise self._failure(f"did not answer within {limit:g} s")
            time.sleep(_PAUSE)

    def stop(self) -> None:
        """Stop the server now, even if clients are connected. It writes and syncs its data first.

        Returns when it has ended (another process may have started the next one by then), and at
        once if none runs. The data stays.

        Raises EmbeddedServerError if it has not ended within 10 s.
        """
        try:
            _check_directory(self.directory)
        except FileNotFoundError:
            return
        started_at = time.monotonic()
        stopping: int | None = None
        while not self._at_rest():
            if stopping is None:
                stopping = self._shut_down()
            elif self.pid() not in (None, stopping):
                return
            if time.monotonic() - started_at > EMBEDDED_START_SECONDS:
                raise self._failure(f"did not stop within {EMBEDDED_START_SECONDS:g} s")
            time.sleep(_PAUSE)

    def pid(self) -> int | None:
        """The process id that the server reports; None if it does not answer."""
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
            _check_directory(self.directory)
        except FileNotFoundError:
            # Checked first, so that no directory is left behind where no server can run.
            find_binary()
            _create_directory(self.directory)
            _check_directory(self.directory)

    def _state(self) -> _State:
        # With the lock, the keeper cannot close between this check and its count of connections.
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
            # Any other error, such as BUSY, comes from a server that is up.
            return _State.LOADING if str(error).startswith("LOADING") else _State.READY
        except ForeignPeer as error:
            raise EmbeddedServerError(
                f"{error}. Set TASKQ_DIR to a directory whose parents only you may rename, or "
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
            remedy = "The directory must be on a local file system: set TASKQ_DIR to one that is"
            if error.errno not in _NO_LOCKS:
                remedy = (
                    "Set TASKQ_DIR to another directory, or TASKQ_URL to a running server's URL"
                )
            raise EmbeddedServerError(
                f"{self.directory / name} cannot be locked: {error.strerror}. {remedy}."
            ) from error

    def _start_keeper(self, keeper_lock: int) -> None:
        """Start a keeper that takes over the lock, and starts or adopts the server."""
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
            # It forks the keeper and ends at once, so that this process keeps no child.
            status = starter.wait()
        finally:
            # Closed, not released: the keeper holds the lock now.
            os.close(keeper_lock)
        if status != 0:
            raise self._failure(f"has no keeper: the keeper ended with status {status}")

    def _open_log(self) -> int:
        path = self.directory / layout.LOG
        try:
            if path.stat().st_size > _LOG_LIMIT:
                path.replace(self.directory / layout.OLD_LOG)
        except FileNotFoundError:
            pass
        return os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)

    def _shut_down(self) -> int | None:
        """Tell the server to stop; returns its pid, or None if no server answered."""
        pid = self.pid()
        try:
            with wire.connect(str(self.socket), EMBEDDED_START_SECONDS) as connection:
                wire.ask(connection, "SHUTDOWN")
        except wire.ErrorReply as error:
            raise EmbeddedServerError(
                f"The embedded server in {self.directory} refuses to stop: {error}."
            ) from error
        except OSError:
            pass  # a server that stops closes the connection instead of answering
        return pid

    def _at_rest(self) -> bool:
        """Whether neither a keeper nor a server runs."""
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
            f"running server. The last lines of its {layout.LOG}:\n{tail or '    (nothing)'}"
        )

    def _read(self, name: str) -> str:
        try:
            return (self.directory / name).read_text(errors="replace")
        except OSError:
            return ""


def _no_files(directory: Path, error: OSError) -> EmbeddedServerError:
    return EmbeddedServerError(
        f"The embedded server in {directory} is unreachable: {error.strerror}. Close files and "
        "sockets that this process no longer needs, or raise the limit (ulimit -n)."
    )


def _environment() -> dict[str, str]:
    """Only what a program needs to start: no keys and no passwords."""
    return {name: os.environ[name] for name in _ENVIRONMENT if name in os.environ}


def _python() -> str:
    # In a frozen application sys.executable is the application itself.
    if not sys.executable or getattr(sys, "frozen", False):
        raise EmbeddedServerError(
            "The embedded server needs a Python interpreter to start, and this program has none. "
            "Set TASKQ_URL to the URL of a running server."
        )
    return sys.executable
