"""The rights that taskq needs on the server, and the ACL rule for a user with exactly these."""

from __future__ import annotations

import asyncio
from typing import Final

from taskq.broker.keys import Keys
from taskq.redis.server_check import Ask, Verdict

__all__ = ["COMMANDS", "acl_rule", "judge_permissions"]

_KEY, _CHANNEL = "<key>", "<channel>"

COMMANDS: Final[dict[str, tuple[str, ...]]] = {
    # Sent by the client.
    "eval": ("return 1", "1", _KEY),
    "evalsha": ("0" * 40, "1", _KEY),
    "info|memory": (),
    "info|persistence": (),
    "info|replication": (),
    "info|server": (),
    "ping": (),
    "subscribe": (_CHANNEL,),
    "unsubscribe": (_CHANNEL,),
    # Called by the scripts; a user needs them all the same.
    "del": (_KEY,),
    "exists": (_KEY,),
    "get": (_KEY,),
    "hdel": (_KEY, "f"),
    "hget": (_KEY, "f"),
    "hgetall": (_KEY,),
    "hincrby": (_KEY, "f", "1"),
    "hkeys": (_KEY,),
    "hlen": (_KEY,),
    "hmget": (_KEY, "f"),
    "hscan": (_KEY, "0"),
    "hset": (_KEY, "f", "v"),
    "llen": (_KEY,),
    "lpush": (_KEY, "v"),
    "ltrim": (_KEY, "0", "1"),
    "pexpire": (_KEY, "1"),
    "pttl": (_KEY,),
    "publish": (_CHANNEL, "m"),
    "pubsub|numsub": (_CHANNEL,),
    "sadd": (_KEY, "m"),
    "set": (_KEY, "v"),
    "smembers": (_KEY,),
    "spop": (_KEY, "1"),
    "srandmember": (_KEY,),
    "srem": (_KEY, "m"),
    "time": (),
    "xack": (_KEY, "g", "0-1"),
    "xadd": (_KEY, "*", "f", "v"),
    "xclaim": (_KEY, "g", "c", "0", "0-1"),
    "xdel": (_KEY, "0-1"),
    "xgroup|create": (_KEY, "g", "0"),
    "xgroup|delconsumer": (_KEY, "g", "c"),
    "xinfo|groups": (_KEY,),
    "xinfo|stream": (_KEY,),
    "xlen": (_KEY,),
    "xpending": (_KEY, "g"),
    "xrange": (_KEY, "-", "+"),
    "xreadgroup": ("GROUP", "g", "c", "STREAMS", _KEY, ">"),
    "zadd": (_KEY, "1", "m"),
    "zcard": (_KEY,),
    "zcount": (_KEY, "0", "1"),
    "zpopmin": (_KEY,),
    "zrange": (_KEY, "0", "1"),
    "zrangebyscore": (_KEY, "0", "1"),
    "zrem": (_KEY, "m"),
    "zscore": (_KEY, "m"),
}
"""Every command that taskq uses, with example arguments; of INFO only the sections it reads.

SELECT is needed for a database other than 0, and allowed for that database only.
"""


def acl_rule(namespace: str, user: str = "taskq", *, database: int = 0) -> str:
    """The command that creates a user with exactly the rights that taskq needs in `namespace`.

    Run it in a shell after `redis-cli`, or at its prompt, with your own password. It cannot limit
    the scripts of this user on the keys of the namespace: taskq needs EVAL, and a script that does
    not end blocks the server for all clients.

    Raises `ConfigError` for a namespace that cannot be part of a key.
    """
    Keys(namespace)
    commands = " ".join(
        f"'+{command}'" if "|" in command else f"+{command}" for command in _needed(database)
    )
    # `reset` and `resetchannels` come first: on 6.2 a new user may use every channel.
    return (
        f"ACL SETUSER {user} reset on '>PASSWORD' resetchannels "
        f"'~{{{namespace}}}:*' '&{{{namespace}}}:*' {commands}"
    )


def _needed(database: int) -> dict[str, tuple[str, ...]]:
    return COMMANDS | ({f"select|{database}": ()} if database else {})


async def judge_permissions(ask: Ask, namespace: str, database: int = 0) -> Verdict:
    """Whether this user has all rights that taskq needs, if the server reports them."""
    whoami = await ask("ACL", "WHOAMI")
    if whoami is None:
        return _skipped("this user may not run ACL WHOAMI")
    user = whoami.decode() if isinstance(whoami, bytes) else str(whoami)
    if await ask("ACL", "DRYRUN", user, "PING") is None:
        return _skipped(f"the server cannot test the rights of user {user} (ACL DRYRUN)")
    tag = f"{{{namespace}}}:"
    samples = {
        name: [
            part.replace(_KEY, tag + "x").replace(_CHANNEL, tag + "x")
            for part in (*name.split("|"), *arguments)
        ]
        for name, arguments in _needed(database).items()
    }
    answers = await asyncio.gather(
        *(ask("ACL", "DRYRUN", user, *sample) for sample in samples.values())
    )
    refused = [
        name for name, answer in zip(samples, answers, strict=True) if answer not in (b"OK", "OK")
    ]
    if refused:
        return Verdict(
            "permissions",
            "bad",
            f"user {user} may not run {', '.join(refused)} on the keys of namespace {namespace}",
            f"give the user the rule that this prints: taskq doctor --acl --namespace {namespace}",
        )
    return Verdict("permissions", "ok", f"user {user} has all rights that taskq needs")


def _skipped(why: str) -> Verdict:
    return Verdict("permissions", "ok", f"not checked: {why}")
