"""Failpoints: named places where a process can be made to die, stand still or fail.

They prove that nothing is lost there. A process is armed before it starts, by its environment::

    TASKQ_FAILPOINTS="finish.sent=kill@3; drain=stop" taskq worker app:q

Each part is `point=action`, or `point=action@n` for the n-th time the point is passed (default the
first). `kill` ends the process as `kill -9` does, `stop` stops it until it is told to continue, and
`raise` raises `Injected`. The points of a script are `<script>.send` (nothing was sent),
`<script>.sent` (the server may do it, its reply is not read) and `<script>.answered` (nobody was
told yet); `drain` is passed when a worker begins to leave.

Not armed, the points of scripts are not there at all, and `drain` is the comparison of a name with
None.
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
    """Passes a failpoint before a script is sent, before its reply is read, and after.

    Only made where failpoints are armed, so that nobody else pays for them.
    """

    def send_nowait(
        self, on_reply: ReplyHandler, script: Script, keys: tuple[str, ...], *args: Any
    ) -> bool:
        """Everything passes through `script`, where the failpoints are."""
        return False

    async def script(self, script: Script, keys: tuple[str, ...], *args: Any) -> Any:
        """As `Client.script`."""
        if ARMED is None:
            return await super().script(script, keys, *args)
        ARMED.reach(f"{script.name}.send")
        await self.connect()
        sending = asyncio.ensure_future(super().script(script, keys, *args))
        # Its first step, which writes the request, comes before the rest of this.
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
    """What to do at which point, and how often each was passed.

    `plan` is written as in the environment. Raises `ConfigError` for what it cannot read.

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
                    f"{VARIABLE}: {part!r} is no failpoint; type drain=kill or finish.sent=kill@3: "
                    "a script with .send, .sent or .answered, and one of "
                    f"{', '.join(_ACTIONS)}"
                )
            self._actions.setdefault(point, {})[int(count or "1")] = _ACTIONS[action]

    def reach(self, point: str) -> None:
        """Do what is planned for this time at this point, if anything is."""
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
