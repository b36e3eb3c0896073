"""The directory of one embedded server, with what tests check and do in it."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import pytest
import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from taskq.embedded import EmbeddedServer
from taskq.embedded import files as layout

ROOT = Path(__file__).resolve().parents[2]
#: For tests that wait until the server stops by itself. The others take a longer one, so that a
#: machine under load does not stop it between two of their lines.
GRACE = 0.4
LONG_GRACE = 10.0


def until(condition: Callable[[], Any], what: str, timeout: float = 10.0) -> Any:
    """Poll until `condition` gives something true, and return it."""
    deadline = time.monotonic() + timeout
    while not (value := condition()):
        if time.monotonic() > deadline:
            pytest.fail(f"not within {timeout:g} s: {what}")
        time.sleep(0.005)
    return value


def holds(condition: Callable[[], Any], what: str, seconds: float) -> None:
    """Check that `condition` stays true for so many seconds."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        assert condition(), f"no longer: {what}"
        time.sleep(0.01)


class Opener:
    """Another process that opens the server; with `hold` it stays connected until it is ended."""

    def __init__(self, directory: Path, grace: float, hold: bool) -> None:
        words = [str(directory), str(grace), "hold" if hold else "leave"]
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.embedded.opener", *words],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )

    @property
    def pid(self) -> int:
        return self._process.pid

    def server_pid(self) -> int:
        """Wait until it has opened the server; the server's pid."""
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        assert line, "the opener failed"
        return int(line)

    def interrupt_group(self) -> None:
        """What Ctrl-C in a terminal does: SIGINT to the whole process group."""
        os.killpg(self._process.pid, signal.SIGINT)
        self._process.wait(10)

    def kill(self) -> None:
        self._process.kill()
        self._process.wait(10)

    def leave(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait(10)

    def end(self) -> None:
        if self._process.poll() is None:
            self.kill()
        for stream in (self._process.stdin, self._process.stdout):
            if stream is not None:
                stream.close()


class Room:
    """The directory, with a hand on every process that works in it."""

    def __init__(self, base: Path) -> None:
        self.base = base
        self.path = base / ".taskq"
        self._openers: list[Opener] = []
        self._clients: list[redis.Redis] = []

    @property
    def socket(self) -> Path:
        return self.path / layout.SOCKET

    def server(
        self,
        idle_grace: float = LONG_GRACE,
        appendfsync: Literal["everysec", "always"] = "everysec",
    ) -> EmbeddedServer:
        return EmbeddedServer(self.path, idle_grace=idle_grace, appendfsync=appendfsync)

    def opener(self, *, hold: bool = True, idle_grace: float = LONG_GRACE) -> Opener:
        opener = Opener(self.path, idle_grace, hold)
        self._openers.append(opener)
        return opener

    def client(self) -> Any:
        """A connected client that shares no code with the server's side."""
        client = redis.Redis(unix_socket_path=str(self.socket), retry=Retry(NoBackoff(), 0))
        self._clients.append(client)
        client.ping()
        return client

    def program(self, script: str) -> Path:
        """A shell script to be run in place of the server."""
        path = self.base / "server"
        path.write_text(f"#!/bin/sh\n{script}\n")
        path.chmod(0o700)
        return path

    def until_written(self) -> None:
        """Wait until the server has handed everything that it acknowledged to the kernel."""
        client = self.client()

        def idle() -> bool:
            facts = client.info("persistence")
            return facts["aof_pending_bio_fsync"] == facts["aof_buffer_length"] == 0

        until(idle, "everything is written")

    def processes(self) -> dict[int, str]:
        """Every living process that works in the directory: its pid and name."""
        found: dict[int, str] = {}
        for entry in Path("/proc").glob("[0-9]*"):
            try:
                if os.readlink(entry / "cwd").removesuffix(" (deleted)") == str(self.path):
                    found[int(entry.name)] = (entry / "comm").read_text().strip()
            except OSError:
                continue  # ended meanwhile, or a zombie
        return found

    def servers(self) -> list[int]:
        return [pid for pid, name in self.processes().items() if name.startswith("valkey")]

    def server_pid(self) -> int:
        pid = self.server().pid()
        assert pid is not None
        return pid

    def keeper(self) -> int:
        """The one keeper's pid; waits for the process that starts it to be gone."""

        def alone() -> list[int]:
            pids = [pid for pid, name in self.processes().items() if name.startswith("python")]
            return pids if len(pids) == 1 else []

        return until(alone, "one keeper")[0]

    def kill(self, *pids: int) -> None:
        """Kill processes of this room, and wait until they are gone."""
        for pid in pids:
            assert pid in self.processes()
            os.kill(pid, signal.SIGKILL)
        until(lambda: not self.processes().keys() & set(pids), f"{pids} gone")

    def disconnect(self) -> None:
        """Let every client and opener of this room go."""
        for client in self._clients:
            client.close()
        for opener in self._openers:
            opener.end()

    def clear(self) -> None:
        """End everything the test has left running."""
        self.disconnect()
        while left := self.processes():
            for pid in left:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
