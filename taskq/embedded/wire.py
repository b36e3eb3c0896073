"""A minimal RESP client for keeper and opener, over a blocking unix socket.

The keeper imports this module: only light modules of the standard library are allowed.
"""

from __future__ import annotations

import os
import socket

from taskq.core.peer import check_peer

__all__ = ["ErrorReply", "ask", "connect", "info"]


class ErrorReply(Exception):
    """The server replied with an error; the text starts with its code, such as `LOADING`."""


def connect(path: str, timeout: float) -> socket.socket:
    """Connect to the unix socket at `path`; `timeout` (seconds) applies to every later call too.

    Raises OSError if no server listens there, and its subclass `ForeignPeer` if the server belongs
    to another user.
    """
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        connection.settimeout(timeout)
        connection.connect(path)
        check_peer(connection, os.geteuid(), path)
    except BaseException:
        connection.close()
        raise
    return connection


def ask(connection: socket.socket, *words: str) -> bytes:
    """Send one command and return its reply (simple string, integer or bulk string).

    Raises ErrorReply for an error reply and OSError when the connection ends or times out.
    """
    parts = [word.encode() for word in words]
    request = b"*%d\r\n" % len(parts) + b"".join(b"$%d\r\n%b\r\n" % (len(p), p) for p in parts)
    connection.sendall(request)
    line, rest = _read_until_line(connection)
    kind, value = line[:1], line[1:]
    if kind == b"-":
        raise ErrorReply(value.decode(errors="replace"))
    if kind != b"$":
        return value
    size = int(value)
    while len(rest) < size + 2:
        rest += _receive(connection)
    return rest[:size]


def info(connection: socket.socket) -> dict[str, str]:
    """The fields of `INFO`, by name."""
    lines = ask(connection, "INFO").decode(errors="replace").splitlines()
    return dict(line.split(":", 1) for line in lines if ":" in line and not line.startswith("#"))


def _read_until_line(connection: socket.socket) -> tuple[bytes, bytes]:
    data = b""
    while b"\r\n" not in data:
        data += _receive(connection)
    line, _, rest = data.partition(b"\r\n")
    return line, rest


def _receive(connection: socket.socket) -> bytes:
    data = connection.recv(65536)
    if not data:
        raise ConnectionResetError("the server closed the connection")
    return data
