"""What any worker may do for all: move jobs whose time has come."""

from __future__ import annotations

from taskq.broker.client import Client
from taskq.broker.clock import ClockOffset
from taskq.broker.keys import Keys
from taskq.broker.scripts import script

__all__ = ["Upkeep"]


class Upkeep:
    """Promotes due jobs and expires waiting ones."""

    def __init__(self, client: Client, keys: Keys, offset: ClockOffset) -> None:
        self._client = client
        self._offset = offset
        self._script = script("promote")
        self._keys = (
            keys.jobs,
            keys.lane_prefix,
            keys.lanes,
            keys.due,
            keys.expiry,
            keys.idle,
            keys.wake_channel,
            keys.done_channel,
        )

    async def promote(self, limit: int, record_ttl: float) -> tuple[int, float | None]:
        """Move up to `limit` due jobs; how many, and seconds until the next is due (None: none is).

        `record_ttl` (seconds) is how long an expired job's record is kept.
        """
        moved, wait_ms = await self._client.script(
            self._script, self._keys, self._offset.ms, limit, int(record_ttl * 1000)
        )
        return moved, None if wait_ms < 0 else wait_ms / 1000
