"""The embedded server: a real Valkey on a unix socket, shared by every process that opens it.

This room starts, finds and stops a server; it knows nothing of queues and jobs, and may import
`core` only. The protocol is described in `docs/internals/embedded-server.md`.
"""

from __future__ import annotations

from taskq.embedded.files import find_binary
from taskq.embedded.server import EmbeddedServer

__all__ = ["EmbeddedServer", "find_binary"]
