"""A server for one side of a comparison: its own process, options as the embedded server has."""

from __future__ import annotations

import asyncio
import shutil
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any

import redis

from benchmarks.processor import seconds_waited
from taskq.embedded.files import find_binary

__all__ = ["Server"]

OPTIONS = {
    "port": "0",
    "unixsocketperm": "700",
    "appendonly": "yes",
    "appendfsync": "everysec",
    "save": "",
    "maxmemory-policy": "noeviction",
    "daemonize": "no",
}
_START_SECONDS = 20.0
_QUIET_SECONDS = 60.0
_CHUNK = 10_000


class Server:
    """A server on a unix socket in a directory of its own; `close` removes both."""

    def __init__(self) -> None:
        self.directory = Path(tempfile.mkdtemp(prefix="tqb"))
        self.socket = self.directory / "s"
        options = OPTIONS | {"unixsocket": str(self.socket), "dir": str(self.directory)}
        with (self.directory / "log").open("wb") as log:
            self._process = subprocess.Popen(
                [
                    str(find_binary()),
                    *(word for name in options for word in (f"--{name}", options[name])),
                ],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        # No health checks and no retries: what this client costs must stay the same all the time.
        self._client: Any = redis.Redis(unix_socket_path=str(self.socket), decode_responses=True)
        try:
            self._wait_until_up()
        except BaseException:
            self.close()
            raise

    @property
    def url(self) -> str:
        """Where clients connect."""
        return f"unix://{self.socket}"

    def info(self, section: str) -> dict[str, Any]:
        """One section of INFO."""
        return self._client.info(section)

    def cpu(self) -> float:
        """Seconds of CPU the server has used so far, all its threads together."""
        cpu = self.info("cpu")
        return float(cpu["used_cpu_user"]) + float(cpu["used_cpu_sys"])

    def waited(self) -> float:
        """Seconds its main thread was ready and had no processor."""
        return seconds_waited(self._process.pid)

    def memory(self) -> int:
        """Bytes the data takes, without what clients and the log's buffer take."""
        facts = self.info("memory")
        return (
            int(facts["used_memory"])
            - int(facts["mem_clients_normal"])
            - int(facts["mem_aof_buffer"])
        )

    def keys(self) -> set[str]:
        """The names of all keys."""
        return set(self._client.scan_iter(count=1000))

    def size(self) -> int:
        """How many keys there are."""
        return int(self._client.dbsize())

    def add_foreign_keys(self, count: int) -> None:
        """Add small hashes that taskq does not use."""
        script = (
            "for i = ARGV[1], ARGV[2] do redis.call('HSET', 'foreign:' .. i, "
            "'e', string.rep('x', 60), 's', 'q', 'q', 'default/5', 't', 1700000000000) end"
        )
        for first in range(1, count + 1, _CHUNK):
            self._client.eval(script, 0, first, min(first + _CHUNK - 1, count))

    def clear(self) -> None:
        """Remove all data."""
        self._client.flushall()

    async def quiet(self) -> None:
        """Wait until the server does nothing of its own: no rewrite, no rehash, no freeing."""
        deadline = time.monotonic() + _QUIET_SECONDS
        before = -1
        while time.monotonic() < deadline:
            facts, now = self.info("persistence"), self.memory()
            if now == before and not int(facts["aof_rewrite_in_progress"]):
                return
            before = now
            await asyncio.sleep(0.05)

    def close(self) -> None:
        """End the process and remove its data."""
        self._client.close()
        self._process.kill()
        self._process.wait()
        shutil.rmtree(self.directory, ignore_errors=True)

    def _wait_until_up(self) -> None:
        deadline = time.monotonic() + _START_SECONDS
        while True:
            try:
                self._client.ping()
                return
            except redis.ConnectionError:
                if time.monotonic() > deadline or self._process.poll() is not None:
                    log = (self.directory / "log").read_text()
                    raise RuntimeError(f"the server does not start:\n{log}") from None
                time.sleep(0.005)
