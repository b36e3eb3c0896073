"""A real server for the tests: one per test process, on a unix socket, nothing on TCP."""

from __future__ import annotations

import os
import shlex
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from pathlib import Path

from taskq.embedded.files import find_binary
from taskq.ops.acl import acl_rule
from taskq.redis.url import Address

__all__ = ["TestServer", "debug_options", "server_binary"]


def server_binary() -> str:
    """The server under test: TASKQ_TEST_SERVER, else the embedded Valkey."""
    return os.environ.get("TASKQ_TEST_SERVER") or str(find_binary())


def under_acl() -> bool:
    """Whether taskq is to be tested as the user that `taskq doctor --acl` makes."""
    return bool(os.environ.get("TASKQ_TEST_ACL"))


def any_namespace_rule() -> list[str]:
    """The rule of `taskq doctor --acl`, for whichever namespace a test uses."""
    rule = acl_rule("NAMESPACE").replace("{NAMESPACE}:", "{*}:").replace("PASSWORD", "secret")
    return shlex.split(rule)[2:]


def debug_options() -> tuple[str, ...]:
    """What lets DEBUG be used: an option of its own since Redis 7.0, nothing before."""
    said = subprocess.run(
        [server_binary(), "--version"], capture_output=True, text=True, check=True
    )
    return () if "v=6." in said.stdout else ("--enable-debug-command", "yes")


class TestServer:
    """A server process with its own directory; it can be stopped, killed and started again."""

    __test__ = False

    def __init__(self, *options: str, environment: dict[str, str] | None = None) -> None:
        self.directory = Path(tempfile.mkdtemp(prefix="tq"))
        self.socket = self.directory / "s"
        self._options = options
        self._environment = os.environ | (environment or {})
        self.process: subprocess.Popen[bytes] | None = None
        self.start()

    @property
    def url(self) -> str:
        """Where taskq finds it: as the user of `taskq doctor --acl`, with TASKQ_TEST_ACL."""
        return f"unix://{self.socket}{self.as_user}"

    @property
    def as_user(self) -> str:
        """Who taskq is there, for a URL; nobody in particular without TASKQ_TEST_ACL."""
        return "?username=taskq&password=secret" if under_acl() else ""

    @property
    def address(self) -> Address:
        """The same as a value."""
        return Address.parse(self.url)

    def start(self) -> None:
        """Start the process and wait until it takes connections."""
        log = (self.directory / "log").open("ab")
        self.process = subprocess.Popen(
            [
                server_binary(),
                *("--port", "0"),
                *("--unixsocket", str(self.socket)),
                *("--dir", str(self.directory)),
                *("--save", ""),
                *("--appendonly", "yes"),
                *("--appendfsync", "everysec"),
                *(("--user", *any_namespace_rule()) if under_acl() else ()),
                *self._options,
            ],
            env=self._environment,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
            # SIGXFSZ stays ignored, as Python has it: a limit on the size of files is to look like
            # a full disk, and not to end the server.
            restore_signals=False,
        )
        log.close()
        deadline = time.monotonic() + 20
        while not self._answers():
            if time.monotonic() > deadline or self.process.poll() is not None:
                self.stop(signal.SIGKILL)
                raise RuntimeError((self.directory / "log").read_text())
            time.sleep(0.005)

    def stop(self, how: signal.Signals = signal.SIGTERM) -> None:
        """End the process; its data stays in the directory."""
        if self.process is not None:
            self.process.send_signal(how)
            self.process.wait(20)
            self.process = None

    def close(self) -> None:
        """End the process and remove its directory."""
        self.stop(signal.SIGKILL)
        shutil.rmtree(self.directory, ignore_errors=True)

    def _answers(self) -> bool:
        with socket.socket(socket.AF_UNIX) as client:
            try:
                client.connect(str(self.socket))
                client.sendall(b"PING\r\n")
                return client.recv(100).startswith(b"+PONG")
            except OSError:
                return False
