"""The keeper: a small process per directory that starts the server and stops it when unused.

The protocol is described in `docs/internals/embedded-server.md`. Invariants:

* This process holds the keeper lock, inherited from the opener, until it ends.
* The server holds the server lock, inherited from this process, until it ends. No process starts a
  server without that lock.
* All names are relative to the working directory. If the directory is deleted and another keeper
  serves a new one under the same path, this keeper cannot touch the new files.
* Pids in files are never trusted: the server is asked over its socket. The only signal ever sent is
  a SIGTERM to this process's own child, whose pid cannot have been reused.

Only light modules of the standard library: this process lives as long as the server does.
"""

from __future__ import annotations

import os
import select
import signal
import socket
import sys
import time

from taskq.core.liveness import KEEPER_ANSWER_SECONDS, KEEPER_SHUTDOWN_SECONDS, KEEPER_START_SECONDS
from taskq.embedded import files as layout
from taskq.embedded import wire

__all__ = ["Keeper", "main"]

#: Seconds between two checks of a server that does not answer yet.
_START_PAUSE = 0.02
#: Seconds between two checks of a server that answers; a quarter of the idle grace if shorter.
_CHECK_PAUSE = 1.0
#: Seconds for a client that found the socket before it was renamed to reach the server's queue.
_SETTLE_SECONDS = 0.02


class _Connection:
    """The keeper's only connection to its server."""

    def __init__(self) -> None:
        self._socket: socket.socket | None = None

    def is_open(self) -> bool:
        """Connect if necessary; false if the server does not accept connections."""
        if self._socket is None:
            try:
                self._socket = wire.connect(layout.SOCKET, KEEPER_ANSWER_SECONDS)
            except OSError:
                return False
        return True

    def counts(self) -> tuple[int, str] | None:
        """Clients connected now, and connections ever made; None if the server gives no answer."""
        if self._socket is None:
            return None
        try:
            return _counts(self._socket)
        except wire.ErrorReply:
            return None
        except OSError:
            self._close()
            return None

    def shut_down(self) -> None:
        """Make the server write and sync its data, and end."""
        if self._socket is None:
            return
        self._socket.settimeout(KEEPER_SHUTDOWN_SECONDS)
        try:
            wire.ask(self._socket, "SHUTDOWN")
        except wire.ErrorReply as error:
            _log(f"the server refuses to stop: {error}")
        except OSError:
            pass  # a server that stops closes the connection instead of answering
        self._close()

    def wait(self, seconds: float) -> None:
        """Return after `seconds`, or as soon as the server closes the connection."""
        if self._socket is None:
            time.sleep(_START_PAUSE)
        # The server sends nothing unasked: a readable connection has ended. The pause is for a
        # server that has reached its limit of clients and closes every new connection at once.
        elif select.select([self._socket], [], [], seconds)[0]:
            self._close()
            time.sleep(_START_PAUSE)

    def _close(self) -> None:
        if self._socket is not None:
            self._socket.close()
        self._socket = None


class Keeper:
    """Starts, watches and stops the server of the working directory."""

    def __init__(self, keeper_lock: int, idle_grace: float) -> None:
        self._keeper_lock = keeper_lock
        self._idle_grace = idle_grace
        self._pause = min(_CHECK_PAUSE, idle_grace / 4)
        self._child: int | None = None
        self._connection = _Connection()
        self._connections_seen = ""
        self._started_at = self._idle_since = time.monotonic()

    def start_or_adopt(self, binary: str, appendfsync: str) -> None:
        """Start a server, or adopt one that runs without a keeper."""
        server_lock = layout.try_lock(layout.SERVER_LOCK)
        if server_lock is None:
            _log("adopting a server that runs without a keeper")
            self._restore_socket()
            return
        if self._connection.is_open():
            raise RuntimeError(f"a server not started by taskq listens on {layout.SOCKET}")
        _remove(layout.SOCKET, layout.CLOSING)
        self._child = _spawn(binary, appendfsync, server_lock)

    def run(self) -> None:
        """Return when the server has ended, by itself or because it was idle."""
        while not self._server_ended():
            if self._connection.is_open():
                self._check()
                self._connection.wait(self._pause)
                continue
            if self._child is not None and self._deleted_before_connect():
                _log("the socket or the lock was deleted: stopping the server")
                os.kill(self._child, signal.SIGTERM)
            starting = time.monotonic() - self._started_at < KEEPER_START_SECONDS
            time.sleep(_START_PAUSE if starting else self._pause)
        if self._owns_the_names():
            _remove(layout.SOCKET, layout.CLOSING, layout.PID)

    def _owns_the_names(self) -> bool:
        """Whether the lock's file is still the one in the directory.

        If it was deleted, another keeper may run here, and the files may be its own.
        """
        try:
            status = os.stat(layout.KEEPER_LOCK)
        except FileNotFoundError:
            return False
        return os.path.samestat(status, os.fstat(self._keeper_lock))

    def _server_ended(self) -> bool:
        if self._child is not None:
            pid, status = os.waitpid(self._child, os.WNOHANG)
            if pid and status:
                _log(f"the server ended: {_describe(status)}")
            return pid != 0
        server_lock = layout.try_lock(layout.SERVER_LOCK)
        if server_lock is None:
            return False
        layout.release(server_lock)
        return True

    def _deleted_before_connect(self) -> bool:
        """Whether the socket or the lock was deleted before this process could connect."""
        reachable = time.monotonic() - self._started_at < KEEPER_START_SECONDS or os.path.exists(
            layout.SOCKET
        )
        return not (reachable and self._owns_the_names())

    def _check(self) -> None:
        if not (self._owns_the_names() and os.path.exists(layout.SOCKET)):
            _log(
                "the socket or the lock was deleted, so no client can connect: stopping the server"
            )
            self._connection.shut_down()
            return
        counts = self._connection.counts()
        now = time.monotonic()
        if counts != (1, self._connections_seen):
            # A busy server gives no counts. An opener that connected and left counts as a client:
            # it is about to use the server.
            self._connections_seen = counts[1] if counts else ""
            self._idle_since = now
        elif now - self._idle_since >= self._idle_grace:
            self._close()

    def _close(self) -> None:
        """Stop an idle server, unless a client is connecting at this moment."""
        if not self._hide_socket():
            return
        # A client that reconnects without asking may have found the socket just before.
        time.sleep(_SETTLE_SECONDS)
        if self._still_idle():
            _log("the server is idle: stopping it")
            self._connection.shut_down()
        # For a server that serves on. One that is just ending refuses connections to its socket.
        self._restore_socket()
        self._idle_since = time.monotonic()

    def _hide_socket(self) -> bool:
        door = layout.try_lock(layout.DOOR_LOCK)
        if door is None:
            return False
        try:
            # Openers that checked before this lock was taken are counted now, and may connect.
            # Openers that check later find no socket, and wait for the next server.
            if self._connection.counts() != (1, self._connections_seen):
                return False
            os.rename(layout.SOCKET, layout.CLOSING)
        except FileNotFoundError:
            return False  # deleted meanwhile: the next check handles that
        finally:
            layout.release(door)
        return True

    def _still_idle(self) -> bool:
        try:
            # Connections are accepted in order: once this one is served, every earlier one is
            # counted.
            with wire.connect(layout.CLOSING, KEEPER_ANSWER_SECONDS) as probe:
                return _counts(probe) == (2, str(int(self._connections_seen) + 1))
        except (OSError, wire.ErrorReply):
            return False

    def _restore_socket(self) -> None:
        """Give the socket its usual name back, unless a new one has taken it."""
        if os.path.exists(layout.CLOSING) and not os.path.exists(layout.SOCKET):
            os.rename(layout.CLOSING, layout.SOCKET)


def _counts(connection: socket.socket) -> tuple[int, str]:
    facts = wire.info(connection)
    return int(facts["connected_clients"]), facts["total_connections_received"]


def _spawn(binary: str, appendfsync: str, server_lock: int) -> int:
    os.set_inheritable(server_lock, True)
    options = {
        "port": "0",
        "unixsocket": layout.SOCKET,
        "unixsocketperm": "700",
        "dir": ".",
        "pidfile": layout.PID,
        "logfile": "",
        "daemonize": "no",
        "appendonly": "yes",
        "appendfsync": appendfsync,
        "aof-load-truncated": "yes",
        "save": "",
        "maxmemory-policy": "noeviction",
        "enable-protected-configs": "no",
        "enable-debug-command": "no",
        "enable-module-command": "no",
    }
    words = [binary, *(word for name in options for word in (f"--{name}", options[name]))]
    child = os.posix_spawn(binary, words, os.environ)
    # From here on only the server holds the lock.
    os.close(server_lock)
    return child


def _describe(status: int) -> str:
    if os.WIFSIGNALED(status):
        return f"signal {os.WTERMSIG(status)}"
    return f"exit status {os.waitstatus_to_exitcode(status)}"


def _remove(*names: str) -> None:
    for name in names:
        if os.path.lexists(name):
            os.unlink(name)


def _log(text: str) -> None:
    now = time.strftime("%d %b %Y %H:%M:%S")
    os.write(1, f"{os.getpid()}:keeper {now} * {text}\n".encode())


def _daemonize() -> None:
    """Drop what a keeper must not inherit: parent, signal handling, umask."""
    if os.fork():
        # The opener waits for this process only, so it keeps no child and no zombie.
        os._exit(0)
    for number in (signal.SIGHUP, signal.SIGINT, signal.SIGQUIT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    # If the opener ignored or blocked it, the server would not see its children end.
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    os.umask(0o077)


def main(words: list[str]) -> None:
    """Run the keeper of the working directory.

    `words`: the descriptor that holds the keeper lock, the server's binary, `appendfsync`, the idle
    grace in seconds, and the directory's path, which only serves readers of `ps`.
    """
    keeper_lock, binary, appendfsync, idle_grace = int(words[0]), *words[1:3], float(words[3])
    # The server must not inherit it: the lock means that a keeper runs.
    os.set_inheritable(keeper_lock, False)
    _daemonize()
    keeper = Keeper(keeper_lock, idle_grace)
    try:
        keeper.start_or_adopt(binary, appendfsync)
        keeper.run()
    except Exception as error:
        _log(f"gave up: {error!r}")
        sys.exit(1)
    finally:
        layout.release(keeper_lock)
