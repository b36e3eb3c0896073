"""Check which user serves a unix socket.

The keeper of the embedded server imports this module, so it uses only the standard library.
"""

from __future__ import annotations

import socket
import struct
import sys

__all__ = ["ForeignPeer", "check_peer", "peer_uid"]

# <sys/un.h> of macOS and the BSDs: `struct xucred` begins with its version and the uid.
_SOL_LOCAL, _LOCAL_PEERCRED = 0, 1


class ForeignPeer(ConnectionError):
    """Another user serves a socket that a process of this user should serve."""


def peer_uid(connection: socket.socket) -> int | None:
    """The uid of the process at the other end of a unix socket; None if the system cannot tell."""
    if sys.platform == "linux":
        credentials = connection.getsockopt(
            socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i")
        )
        return struct.unpack("3i", credentials)[1]
    if sys.platform == "darwin" or "bsd" in sys.platform:
        return struct.unpack_from("2I", connection.getsockopt(_SOL_LOCAL, _LOCAL_PEERCRED, 128))[1]
    return None


def check_peer(connection: socket.socket, uid: int, path: str) -> None:
    """Raise `ForeignPeer` unless the socket at `path` is served by the user `uid`.

    Checking the directory by its name is not enough: a user who may rename one of its parents can
    replace it before the socket in it is opened. An open connection cannot be replaced.
    """
    found = peer_uid(connection)
    if found not in (None, uid):
        raise ForeignPeer(
            f"{path} is served by the user with uid {found}, not by yours ({uid}): a user who "
            "may rename a parent of its folder has replaced it"
        )
