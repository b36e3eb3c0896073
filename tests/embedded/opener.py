"""Opens an embedded server, says the server's pid, and waits for its input to end."""

from __future__ import annotations

import contextlib
import signal
import sys
from pathlib import Path

from taskq.embedded import EmbeddedServer, wire


def main() -> None:
    directory, grace, manner = sys.argv[1:]
    # Tests that run in the background inherit an ignored one.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    server = EmbeddedServer(Path(directory), idle_grace=float(grace))
    path = server.ensure()
    with contextlib.ExitStack() as stack:
        if manner == "hold":
            connection = stack.enter_context(wire.connect(str(path), 5.0))
            wire.ask(connection, "PING")
        print(server.pid(), flush=True)
        sys.stdin.read()


if __name__ == "__main__":
    main()
