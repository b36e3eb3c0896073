"""A client with failpoints: what a process uses that was armed to die between two words."""

from __future__ import annotations

import asyncio
from typing import Any

from taskq.broker.client import Client
from taskq.broker.connection import Told
from taskq.broker.scripts import Script
from taskq.core.failpoints import ARMED

__all__ = ["ArmedClient"]


class ArmedClient(Client):
    """Passes a failpoint before a script is sent, before its reply is read, and after.

    Only made where failpoints are armed, so that nobody else pays for them.
    """

    def post(self, told: Told, script: Script, keys: tuple[str, ...], *args: Any) -> bool:
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
