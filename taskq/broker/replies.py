"""What error replies of the server mean: wait, explain, or give up."""

from __future__ import annotations

import re
from typing import Final

import hiredis

from taskq.core.errors import QueueFull, ServerError, ServerRefused, ServerUnavailable

__all__ = ["demoted", "translate"]

_WAIT: Final = {
    "LOADING": "is loading its data, and is waited for",
    "BUSY": "is busy with somebody's script, and is waited for; SCRIPT KILL ends it",
    "READONLY": "takes no writes, for it is a replica now; the primary is looked for again. If "
    "TASKQ_URL names a replica, let it name the primary",
    "MASTERDOWN": "is a replica that lost its primary, and is waited for",
    "NOREPLICAS": "has fewer replicas than its min-replicas-to-write, and is waited for",
    "MISCONF": "cannot write its data to its disk, and is waited for; free space there, or make "
    "its directory writable",
    "CLUSTERDOWN": "belongs to a cluster that is down, and is waited for",
    "TRYAGAIN": "is moving its keys, and is waited for",
    "UNBLOCKED": "let go of a waiting call; it is made again",
    "ERR max number of clients": "has as many clients as its maxclients allows, and is waited for; "
    "raise maxclients, or run fewer processes",
}
"""By the code of an error that passes: what the server does."""

_CODES = [code for code in _WAIT if " " not in code]

_REFUSALS = ("NOAUTH", "WRONGPASS", "NOPERM", "ERR AUTH", "ERR invalid password", "ERR DB index")

# Redis 6.2 puts the code of an error inside a script behind words of its own, and any server puts
# one that a script raises again behind ERR.
_IN_SCRIPT = re.compile(
    rf"^ERR (?:Error running script .*?: -(?=[A-Z]+ )|(?=(?:{'|'.join(_CODES)})\b))(.*)", re.DOTALL
)


def translate(error: hiredis.ReplyError, where: str) -> ServerError:
    """The error tree's word for an error reply of the server at `where`."""
    text = _plain(error)
    if text.startswith("OOM") or "-OOM" in text or "OOM command not allowed" in text:
        return QueueFull(
            f"{where} is at its maxmemory and takes no more jobs; workers go on draining. Raise "
            "maxmemory, add workers, or try again later"
        )
    for code, words in _WAIT.items():
        if text.startswith(code):
            return ServerUnavailable(f"{where} {words} ({text})")
    if text.startswith(_REFUSALS):
        return ServerRefused(f"{where} refuses this client: {text}; check user, password and ACL")
    if "ACL failure" in text or "NOPERM" in text:
        return ServerRefused(
            f"{where} does not let this user do what taskq needs: {text}; `taskq doctor --acl` "
            "prints the rule to give it"
        )
    return ServerRefused(f"{where} answered an error: {text}")


def demoted(error: hiredis.ReplyError) -> bool:
    """Whether the server says that it is not the one to talk to any more."""
    return _plain(error).startswith(("READONLY", "MASTERDOWN"))


def _plain(error: hiredis.ReplyError) -> str:
    text = str(error)
    inside = _IN_SCRIPT.match(text)
    return inside.group(1) if inside else text
