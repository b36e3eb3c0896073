"""Failpoints: named places where a process can be made to die, stop or fail.

Tests use them to prove that nothing is lost there. They are set in the environment of a process
before it starts::

    TASKQ_FAILPOINTS="finish.sent=kill@3; drain=stop" taskq worker app:q

Each part is `point=action`, or `point=action@n` for the n-th time the point is reached (default
the first). `kill` ends the process as `kill -9` does, `stop` stops it until it gets SIGCONT, and
`raise` raises `Injected`. The points of a script are `<script>.send` (nothing was sent),
`<script>.sent` (the server may run it, its reply was not read) and `<script>.answered` (the reply
was read, the caller has not seen it); a worker reaches `drain` when it begins to leave.

Without failpoints in the environment, scripts run without any check, and `drain` costs one
comparison with None.
"""

from __future__ import annotations

import asyncio
import os
import re
import signal
from collections.abc import Callable, Mapping
from typing import Any, Final

from taskq.core.errors import ConfigError, Injected
from taskq.redis.client import Client, Script
from taskq.redis.connection import ReplyHandler

__all__ = ["ARMED", "FailpointClient", "Failpoints"]


class FailpointClient(Client):
    """Reaches a failpoint before a script is sent, before its reply is read, and after.

    Only used where failpoints are armed, so that they cost nothing elsewhere.
    """

    def send_nowait(
        self, on_reply: ReplyHandler, script: Script, keys: tuple[str, ...], *args: Any
    ) -> bool:
        """Sends nothing: every call goes through `script`, which has the failpoints."""
        return False

    async def script(self, script: Script, keys: tuple[str, ...], *args: Any) -> Any:
        """As `Client.script`."""
        if ARMED is None:
            return await super().script(script, keys, *args)
        ARMED.reach(f"{script.name}.send")
        await self.connect()
        sending = asyncio.ensure_future(super().script(script, keys, *args))
        # Let its first step write the request.
        await asyncio.sleep(0)
        try:
            ARMED.reach(f"{script.name}.sent")
        except BaseException:
            sending.cancel()
            raise
        reply = await sending
        ARMED.reach(f"{script.name}.answered")
        return reply


VARIABLE: Final = "TASKQ_FAILPOINTS"

_POINT: Final = re.compile(r"drain|[a-z_]+\.(send|sent|answered)")


def _raise(point: str) -> None:
    raise Injected(f"failpoint {point}: made to fail by {VARIABLE}")


_ACTIONS: Final[Mapping[str, Callable[[str], None]]] = {
    "kill": lambda _: os.kill(os.getpid(), signal.SIGKILL),
    "stop": lambda _: os.kill(os.getpid(), signal.SIGSTOP),
    "raise": _raise,
}


class Failpoints:
    """The action for each point, and how often each point was reached.

    `plan` has the form of the environment variable; raises `ConfigError` for an invalid one.

    >>> Failpoints("finish.sent=raise@2").reach("finish.sent")
    """

    def __init__(self, plan: str) -> None:
        self._actions: dict[str, dict[int, Callable[[str], None]]] = {}
        self._passed: dict[str, int] = {}
        for part in filter(None, map(str.strip, plan.split(";"))):
            point, _, rest = part.partition("=")
            action, _, count = rest.partition("@")
            known = _POINT.fullmatch(point) and action in _ACTIONS
            if not known or not (count or "1").isdigit():
                raise ConfigError(
                    f"{VARIABLE}: {part!r} is not a failpoint; "
                    "use drain=kill or finish.sent=kill@3: "
                    f"a script with .send, .sent or .answered, and one of {', '.join(_ACTIONS)}"
                )
            self._actions.setdefault(point, {})[int(count or "1")] = _ACTIONS[action]

    def reach(self, point: str) -> None:
        """Take the action that is planned for this point and count, if any."""
        actions = self._actions.get(point)
        if actions is None:
            return
        passed = self._passed[point] = self._passed.get(point, 0) + 1
        action = actions.get(passed)
        if action is not None:
            action(point)


def _from_environment() -> Failpoints | None:
    plan = os.environ.get(VARIABLE)
    return Failpoints(plan) if plan else None


ARMED: Final = _from_environment()
"""The failpoints of this process; None when none are armed."""
