"""The few words of RESP, read in pieces of any size."""

from __future__ import annotations

import socket
from collections.abc import Iterator

import pytest

from taskq.embedded import wire


@pytest.fixture
def ends() -> Iterator[tuple[socket.socket, socket.socket]]:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        ours.settimeout(5)
        yield ours, theirs


@pytest.mark.parametrize(
    ("reply", "value"),
    [(b"+PONG\r\n", b"PONG"), (b":42\r\n", b"42"), (b"$5\r\na\r\nbc\r\n", b"a\r\nbc")],
)
def test_a_reply_is_read(ends: tuple[socket.socket, socket.socket], reply: bytes, value: bytes):
    ours, theirs = ends
    theirs.sendall(reply)

    assert wire.ask(ours, "WORD", "é") == value
    assert theirs.recv(100) == b"*2\r\n$4\r\nWORD\r\n$2\r\n\xc3\xa9\r\n"


def test_an_error_reply_is_raised(ends: tuple[socket.socket, socket.socket]):
    ours, theirs = ends
    theirs.sendall(b"-LOADING wait\r\n")

    with pytest.raises(wire.ErrorReply, match=r"^LOADING wait$"):
        wire.ask(ours, "PING")


@pytest.mark.parametrize("half", [b"", b"+PO", b"$5\r\nab"])
def test_a_reply_that_breaks_off_is_a_lost_connection(
    ends: tuple[socket.socket, socket.socket], half: bytes
):
    ours, theirs = ends
    theirs.sendall(half)
    theirs.shutdown(socket.SHUT_WR)

    with pytest.raises(ConnectionError):
        wire.ask(ours, "PING")


def test_info_is_read_as_names_and_texts(ends: tuple[socket.socket, socket.socket]):
    ours, theirs = ends
    text = b"# Server\r\nprocess_id:7\r\n\r\nexecutable:/a:b\r\n"
    theirs.sendall(b"$%d\r\n%b\r\n" % (len(text), text))

    assert wire.info(ours) == {"process_id": "7", "executable": "/a:b"}
