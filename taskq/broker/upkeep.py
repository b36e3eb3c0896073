"""What one worker does for all: move jobs whose time has come, remove what is not used."""

from __future__ import annotations

from typing import Final

from taskq.broker.client import Client
from taskq.broker.clock import ClockOffset
from taskq.broker.keys import Keys
from taskq.broker.scripts import script

__all__ = ["Upkeep"]

_QUEUES: Final = 50
_ENTRIES: Final = 100
_LOOKS: Final = 400
"""So many lanes and entries take the server some milliseconds."""

_KEEP_EMPTY_MS: Final = 60_000
"""How long an empty lane is kept, so that a queue used now and then costs nothing."""


class Upkeep:
    """Promotes due jobs, expires waiting ones, and sweeps."""

    def __init__(self, client: Client, keys: Keys, offset: ClockOffset) -> None:
        self._client = client
        self._offset = offset
        self._promote, self._sweep = script("promote"), script("sweep")
        self._sweep_keys = (
            *(keys.jobs, keys.lane_prefix, keys.lanes, keys.swept),
            *(keys.workers, keys.serves),
        )
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
            self._promote, self._keys, self._offset.ms, limit, int(record_ttl * 1000)
        )
        return moved, None if wait_ms < 0 else wait_ms / 1000

    async def sweep(self, cursor: str) -> str:
        """Remove lanes that stayed empty and entries of jobs that wait no more, some at a time.

        `cursor` is "0" at first and what the last call gave then; "0" again is the end.
        """
        reply: bytes = await self._client.script(
            self._sweep, self._sweep_keys, cursor, _QUEUES, _ENTRIES, _KEEP_EMPTY_MS, _LOOKS
        )
        return reply.decode()
