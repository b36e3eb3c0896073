"""Who serves a unix socket.

The keeper of the embedded server imports this module: standard library only, and nothing heavy.
"""

from __future__ import annotations

import socket
import struct
import sys

__all__ = ["ForeignPeer", "check_peer", "peer_uid"]

# <sys/un.h> of macOS and the BSDs: `struct xucred` begins with its version and the uid.
_SOL_LOCAL, _LOCAL_PEERCRED = 0, 1


class ForeignPeer(ConnectionError):
    """A socket that should be served by this user's own process is another user's."""


def peer_uid(connection: socket.socket) -> int | None:
    """The user that runs the other end of a connected unix socket; None where nobody can say."""
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

    A directory is looked at by its name, and whoever may rename one of its parents can put another
    there before the socket in it is opened. The connection itself cannot be exchanged.
    """
    found = peer_uid(connection)
    if found not in (None, uid):
        raise ForeignPeer(
            f"{path} is served by the user with uid {found}, not by yours ({uid}): somebody who "
            "may rename a parent of its folder put another one in its place"
        )
