"""Leases: heartbeats, dead workers, and jobs stranded by a lost reply."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

from taskq.broker.consumer import delivery_of
from taskq.broker.keys import Keys
from taskq.broker.lenient import text_of
from taskq.broker.scripts import ClockOffset, script
from taskq.codec.envelope import pack_failure
from taskq.core.job import Delivery
from taskq.core.outcome import Failed
from taskq.redis.client import Client

__all__ = ["BeatReply", "HeldEntry", "Leases", "ReapPolicy", "Reaped", "SilentWorker"]

_REAPED_AT_ONCE: Final = 200
"""Reaping this many jobs takes the server a few milliseconds."""


class SilentWorker(NamedTuple):
    """A worker without a recent heartbeat: its name, and the number of its last heartbeat.

    A number below zero marks a worker that is only partly reaped.
    """

    worker: str
    heartbeat: int


class HeldEntry(NamedTuple):
    """A stream entry that is pending for a worker, and the job behind it.

    `job_id` is empty when the entry does not lead to a running job of this worker.
    """

    entry: bytes
    lane: str
    job_id: str
    fence: int


@dataclass(frozen=True, slots=True)
class BeatReply:
    """The server's answer to a heartbeat, and the number of this heartbeat.

    `held`: how many jobs the worker holds. `cancels`: which of them to cancel. `promotes`: whether
    this worker promotes due jobs. `silent`: the workers without a heartbeat since the given one.
    """

    heartbeat: int
    held: int
    cancels: tuple[str, ...]
    promotes: bool
    silent: tuple[SilentWorker, ...]


@dataclass(frozen=True, slots=True)
class ReapPolicy:
    """After `max_crashes` crashes a job is poison; its record is kept for `failure_ttl` seconds."""

    max_crashes: int = 3
    failure_ttl: float = 604_800.0
    keep_failed: int = 10_000


@dataclass(frozen=True, slots=True)
class Reaped:
    """How many jobs of a dead worker were given to others, and how many were poison."""

    moved: int
    poisoned: int


class Leases:
    """Reads and writes the heartbeats of workers, and takes back the jobs of dead ones."""

    def __init__(self, client: Client, keys: Keys, offset: ClockOffset) -> None:
        self._client = client
        self._keys = keys
        self._offset = offset
        self._scripts = {name: script(name) for name in ("beat", "reap", "strays")}

    async def beat(
        self, worker: str, description: bytes, *, since: int = 0, promotes: bool = True
    ) -> BeatReply | None:
        """Send a heartbeat of `worker`; None when the server has declared it dead.

        `since` is an earlier heartbeat of this worker: workers that sent none since are silent.
        With `promotes` false this worker does not promote due jobs, and stops if it did.
        """
        return await self._beat(worker, description, since, int(promotes))

    async def register(
        self,
        worker: str,
        description: bytes,
        slots: int,
        queues: Sequence[str],
        *,
        promotes: bool = True,
    ) -> BeatReply | None:
        """Register `worker`, which runs up to `slots` jobs of `queues` at once.

        None when its name is taken.
        """
        return await self._beat(worker, description, 0, int(promotes), slots, " ".join(queues))

    async def _beat(self, worker: str, *args: Any) -> BeatReply | None:
        keys = self._keys
        reply = await self._client.script(
            self._scripts["beat"],
            (
                *(keys.workers, keys.held, keys.slots, keys.serves, keys.promoter),
                *(keys.cancels + worker, keys.worker_info + worker),
            ),
            worker,
            *args,
        )
        if reply is None:
            return None
        heartbeat, held, cancels, promotes, silent = reply
        names, numbers = silent[::2], silent[1::2]
        return BeatReply(
            heartbeat,
            held,
            tuple(text_of(job_id) for job_id in cancels),
            promotes == b"1",
            tuple(
                SilentWorker(text_of(n), _number(beat))
                for n, beat in zip(names, numbers, strict=True)
            ),
        )

    async def heartbeats(self) -> dict[str, int]:
        """The number of the last heartbeat of every registered worker."""
        reply = await self._client.command("ZRANGE", self._keys.workers, 0, -1, "WITHSCORES")
        return {text_of(worker): _number(beat) for worker, beat in reply}

    async def last_heartbeat(self, worker: str) -> int | None:
        """The number of a worker's last heartbeat; None when it is not registered."""
        beat = await self._client.command("ZSCORE", self._keys.workers, worker)
        return None if beat is None else _number(beat)

    async def holders(self) -> dict[str, int]:
        """The last heartbeat of every registered worker that holds jobs."""
        held = await self._client.command("HGETALL", self._keys.held)
        holding = {text_of(worker) for worker, count in held.items() if count > b"0"}
        return {name: beat for name, beat in (await self.heartbeats()).items() if name in holding}

    async def reap(
        self, worker: str, policy: ReapPolicy, *, heartbeat: int | None = None, died: bool = True
    ) -> Reaped | None:
        """Give a worker's jobs to others; None when it sent a heartbeat after `heartbeat`.

        With `died=False` the worker left in order, and its jobs count no crash.
        """
        moved = poisoned = 0
        while True:
            reply = await self._reap_some(worker, policy, heartbeat, died)
            if reply is None:
                # Another observer did the rest, and a new worker has taken the name.
                return Reaped(moved, poisoned) if moved or poisoned else None
            moved, poisoned = moved + reply[0], poisoned + reply[1]
            if reply[2] != b"1":
                return Reaped(moved, poisoned)
            heartbeat = -1

    async def _reap_some(
        self, worker: str, policy: ReapPolicy, heartbeat: int | None, died: bool
    ) -> tuple[int, int, bytes] | None:
        keys = self._keys
        return await self._client.script(
            self._scripts["reap"],
            (
                *(keys.jobs, keys.lane_prefix, keys.lanes, keys.idle),
                *(keys.workers, keys.held, keys.slots, keys.serves, keys.promoter),
                *(keys.failed, keys.done_channel, keys.wake_channel),
                *(keys.cancels + worker, keys.worker_info + worker, keys.expiry),
            ),
            self._offset.ms,
            worker,
            "" if heartbeat is None else heartbeat,
            int(died),
            _REAPED_AT_ONCE,
            policy.max_crashes,
            int(policy.failure_ttl * 1000),
            policy.keep_failed,
            _poison(policy.max_crashes),
        )

    async def suspects_wait(self, queues: Sequence[str]) -> bool:
        """Whether suspects wait in these queues: jobs whose workers died again and again."""
        signs = await self._client.command("HMGET", self._keys.lanes, *queues)
        return any(sign is not None and b"s" in sign for sign in signs)

    async def held(self, worker: str) -> list[HeldEntry]:
        """The entries that are pending for `worker` on the server."""
        return [
            HeldEntry(lane + b" " + stream_id, text_of(lane), text_of(job_id), int(fence or 0))
            for lane, stream_id, job_id, fence in await self._strays(worker, "")
        ]

    async def redeliver(self, worker: str, entries: Iterable[bytes]) -> list[Delivery]:
        """The jobs behind `entries` that this worker still holds, as a fetch returns them.

        Returns as many as fit into one reply; ask again for the others.
        """
        return [delivery_of(row) for row in await self._strays(worker, *entries)]

    async def _strays(self, worker: str, *entries: bytes | str) -> list[Any]:
        keys = self._keys
        at, found = 1, list[Any]()
        while at:
            at, *some = await self._client.script(
                self._scripts["strays"],
                (keys.jobs, keys.lane_prefix, keys.lanes, keys.serves),
                worker,
                at,
                *entries,
            )
            found += some
        return found


def _number(score: bytes) -> int:
    # A whole number, as `reap.lua` compares it, also where foreign data is stored.
    number = float(score)
    return int(max(-1.0, min(number, 2.0**53)))


def _poison(crashes: int) -> bytes:
    return pack_failure(
        Failed(
            "Poison",
            f"at least {crashes} workers died while they ran this job; it is not tried again. "
            "Look into their logs, and try it with executor='process': there a crash hits only "
            "the job",
            "",
            "poison",
        )
    )
