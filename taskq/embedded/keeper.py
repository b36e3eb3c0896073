"""The keeper: one small process per directory that starts the server, and stops it when unused.

The protocol is described in `docs/internals/embedded-server.md`. Invariants:

* This process holds the keeper lock, inherited from the opener, until it ends.
* The server holds the server lock, inherited from this process, until it ends. Nobody starts a
  server without it.
* All names are relative to the working directory. When somebody deletes the directory and another
  keeper serves a new one under the same path, this one cannot touch its files.
* No pid of a file is trusted: the server is asked over its socket. The only signal ever sent is a
  SIGTERM to this process's own child, whose pid cannot have become another's.

Standard library only, and nothing heavy from it: this process lives as long as the server does.
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

#: Seconds between two looks at a server that does not answer yet.
_IMPATIENT = 0.02
#: Seconds between two looks at a server that does, unless the idle grace is shorter than four.
_PATIENT = 1.0
#: Seconds for a connect that had found the socket before it was renamed to come into its queue.
_SETTLE = 0.02


class _Line:
    """The one connection that the keeper holds to its server."""

    def __init__(self) -> None:
        self._connection: socket.socket | None = None

    def is_open(self) -> bool:
        """Connect if need be."""
        if self._connection is None:
            try:
                self._connection = wire.connect(layout.SOCKET, KEEPER_ANSWER_SECONDS)
            except OSError:
                return False
        return True

    def census(self) -> tuple[int, str] | None:
        """Clients connected now, and connections ever made; None if the server does not say."""
        if self._connection is None:
            return None
        try:
            return _census(self._connection)
        except wire.ErrorReply:
            return None
        except OSError:
            self._close()
            return None

    def shut_down(self) -> None:
        """Let the server write, sync and leave."""
        if self._connection is None:
            return
        self._connection.settimeout(KEEPER_SHUTDOWN_SECONDS)
        try:
            wire.ask(self._connection, "SHUTDOWN")
        except wire.ErrorReply as error:
            _say(f"the server does not stop: {error}")
        except OSError:
            pass  # it goes: a server that stops closes the connection instead of answering
        self._close()

    def wait(self, seconds: float) -> None:
        """Return after so many seconds, or as soon as the server has closed the connection."""
        if self._connection is None:
            time.sleep(_IMPATIENT)
        # Nobody speaks unasked on this connection: if it is readable, it has ended. The pause is
        # for a server that is full and ends every new connection at once.
        elif select.select([self._connection], [], [], seconds)[0]:
            self._close()
            time.sleep(_IMPATIENT)

    def _close(self) -> None:
        if self._connection is not None:
            self._connection.close()
        self._connection = None


class Keeper:
    """Looks after the server of the working directory."""

    def __init__(self, keeper_lock: int, idle_grace: float) -> None:
        self._keeper_lock = keeper_lock
        self._idle_grace = idle_grace
        self._pause = min(_PATIENT, idle_grace / 4)
        self._child: int | None = None
        self._line = _Line()
        self._seen = ""
        self._began = self._quiet_since = time.monotonic()

    def start_or_adopt(self, binary: str, appendfsync: str) -> None:
        """Start a server, unless one lives that has lost its keeper."""
        server_lock = layout.try_lock(layout.SERVER_LOCK)
        if server_lock is None:
            _say("a server without a keeper: adopting it")
            self._reopen()
            return
        if self._line.is_open():
            raise RuntimeError(f"a server that is not taskq's listens on {layout.SOCKET}")
        _remove(layout.SOCKET, layout.CLOSING)
        self._child = _spawn(binary, appendfsync, server_lock)

    def run(self) -> None:
        """Return when the server has gone, by itself or because nobody uses it any more."""
        while not self._server_has_gone():
            if self._line.is_open():
                self._look()
                self._line.wait(self._pause)
                continue
            if self._child is not None and self._was_lost_early():
                _say("the socket or the lock was deleted: stopping the server")
                os.kill(self._child, signal.SIGTERM)
            young = time.monotonic() - self._began < KEEPER_START_SECONDS
            time.sleep(_IMPATIENT if young else self._pause)
        if self._owns_the_names():
            _remove(layout.SOCKET, layout.CLOSING, layout.PID)

    def _owns_the_names(self) -> bool:
        """Whether the lock's file is still the one in the directory.

        If somebody deleted it, another keeper may be at work here and the names are not ours.
        """
        try:
            there = os.stat(layout.KEEPER_LOCK)
        except FileNotFoundError:
            return False
        return os.path.samestat(there, os.fstat(self._keeper_lock))

    def _server_has_gone(self) -> bool:
        if self._child is not None:
            pid, status = os.waitpid(self._child, os.WNOHANG)
            if pid and status:
                _say(f"the server ended: {_how(status)}")
            return pid != 0
        server_lock = layout.try_lock(layout.SERVER_LOCK)
        if server_lock is None:
            return False
        layout.release(server_lock)
        return True

    def _was_lost_early(self) -> bool:
        """Whether names were deleted before this process could connect."""
        started = time.monotonic() - self._began < KEEPER_START_SECONDS or os.path.exists(
            layout.SOCKET
        )
        return not (started and self._owns_the_names())

    def _look(self) -> None:
        if not (self._owns_the_names() and os.path.exists(layout.SOCKET)):
            _say("the socket or the lock was deleted: nobody can come in any more")
            self._line.shut_down()
            return
        census = self._line.census()
        now = time.monotonic()
        if census != (1, self._seen):
            # A busy server gives no census. An opener that came and went counts as a client: it
            # was told that the server is up.
            self._seen = census[1] if census else ""
            self._quiet_since = now
        elif now - self._quiet_since >= self._idle_grace:
            self._close()

    def _close(self) -> None:
        """Stop an idle server, unless somebody is coming in at this very moment."""
        if not self._take_the_name():
            return
        # What may still come in has found the socket before, without asking as an opener does.
        time.sleep(_SETTLE)
        if self._nobody_came():
            _say("nobody uses the server any more: stopping it")
            self._line.shut_down()
        # Wherever the server serves on, and a moment too early where it is just leaving: connects
        # to its socket are refused then.
        self._reopen()
        self._quiet_since = time.monotonic()

    def _take_the_name(self) -> bool:
        door = layout.try_lock(layout.DOOR_LOCK)
        if door is None:
            return False
        try:
            # Whoever asked before the door was ours is counted now, and comes in. Whoever asks
            # after finds no socket, and waits for the next server.
            if self._line.census() != (1, self._seen):
                return False
            os.rename(layout.SOCKET, layout.CLOSING)
        except FileNotFoundError:
            return False  # deleted since we looked: the next look deals with it
        finally:
            layout.release(door)
        return True

    def _nobody_came(self) -> bool:
        try:
            # The queue is in order: once this connection is served, everybody who came before it
            # is counted.
            with wire.connect(layout.CLOSING, KEEPER_ANSWER_SECONDS) as probe:
                return _census(probe) == (2, str(int(self._seen) + 1))
        except (OSError, wire.ErrorReply):
            return False

    def _reopen(self) -> None:
        """Give the socket its name back, if a server stands behind it."""
        if os.path.exists(layout.CLOSING) and not os.path.exists(layout.SOCKET):
            os.rename(layout.CLOSING, layout.SOCKET)


def _census(connection: socket.socket) -> tuple[int, str]:
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
    # From here on the lock lives exactly as long as the server.
    os.close(server_lock)
    return child


def _how(status: int) -> str:
    if os.WIFSIGNALED(status):
        return f"signal {os.WTERMSIG(status)}"
    return f"exit status {os.waitstatus_to_exitcode(status)}"


def _remove(*names: str) -> None:
    for name in names:
        if os.path.lexists(name):
            os.unlink(name)


def _say(text: str) -> None:
    now = time.strftime("%d %b %Y %H:%M:%S")
    os.write(1, f"{os.getpid()}:keeper {now} * {text}\n".encode())


def _leave_the_opener() -> None:
    """Shed what a keeper must not inherit: parent, signals, umask."""
    if os.fork():
        # The opener waits for this process only, so it is left with no child and no zombie.
        os._exit(0)
    for number in (signal.SIGHUP, signal.SIGINT, signal.SIGQUIT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    # Ignored or blocked in the opener, it would keep the server from seeing its children end.
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    os.umask(0o077)


def main(words: list[str]) -> None:
    """Be the keeper of the working directory.

    `words`: the descriptor that holds the keeper lock, the server's binary, `appendfsync`, the idle
    grace in seconds, and the directory's path, which is there for readers of `ps` only.
    """
    keeper_lock, binary, appendfsync, idle_grace = int(words[0]), *words[1:3], float(words[3])
    # The server must not inherit it: the lock means that a keeper lives.
    os.set_inheritable(keeper_lock, False)
    _leave_the_opener()
    keeper = Keeper(keeper_lock, idle_grace)
    try:
        keeper.start_or_adopt(binary, appendfsync)
        keeper.run()
    except Exception as error:
        _say(f"gave up: {error!r}")
        sys.exit(1)
    finally:
        layout.release(keeper_lock)
