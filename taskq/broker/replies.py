"""What error replies of the server mean: wait, explain, or give up."""

from __future__ import annotations

import hiredis

from taskq.core.errors import QueueFull, ServerError, ServerRefused, ServerUnavailable

__all__ = ["translate"]

_TRANSIENT = (
    *("LOADING", "BUSY", "MASTERDOWN", "READONLY", "CLUSTERDOWN", "TRYAGAIN", "UNBLOCKED"),
    "ERR max number of clients",
)
_REFUSALS = ("NOAUTH", "WRONGPASS", "NOPERM", "ERR AUTH", "ERR invalid password", "ERR DB index")


def translate(error: hiredis.ReplyError, where: str) -> ServerError:
    """The error tree's word for an error reply of the server at `where`."""
    text = str(error)
    if text.startswith("OOM") or "-OOM" in text or "OOM command not allowed" in text:
        return QueueFull(
            f"{where} is at its maxmemory and takes no more jobs; workers go on draining. Raise "
            "maxmemory, add workers, or try again later"
        )
    if text.startswith(_TRANSIENT):
        return ServerUnavailable(f"{where} is not ready: {text}")
    if text.startswith(_REFUSALS):
        return ServerRefused(f"{where} refuses this client: {text}; check user, password and ACL")
    if "ACL failure" in text or "NOPERM" in text:
        return ServerRefused(
            f"{where} does not let this user do what taskq needs: {text}; `taskq doctor --acl` "
            "prints the rule to give it"
        )
    return ServerRefused(f"{where} answered an error: {text}")
