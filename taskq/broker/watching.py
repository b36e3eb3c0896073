"""Watches jobs: each change is read once for all viewers, when the server announces it."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator
from typing import Any, Final

from taskq.broker.jobs import CHANGING_FIELDS, Jobs, updated
from taskq.broker.keys import Keys
from taskq.broker.scripts import ClockOffset, script
from taskq.broker.waiting import Waiting
from taskq.codec.signing import Signing
from taskq.core.ids import new_id
from taskq.core.job import Ending, JobInfo
from taskq.core.liveness import CALL_SECONDS
from taskq.redis.client import Client, retrying

__all__ = ["Watching"]

LOOK_SECONDS: Final = 1.0
"""How often starts and retries, which are not announced, are looked for."""

PAUSE_SECONDS: Final = 0.1
"""The shortest time between two reads of a job, however often it reports progress."""


class _Watched:
    """A job and its viewers. `news` is set, and replaced, with each change."""

    def __init__(self) -> None:
        self.info: JobInfo | None = None
        self.error: BaseException | None = None
        self.news = asyncio.Event()
        self.moved = asyncio.Event()
        self.viewers = 0
        self.following: asyncio.Task[None] | None = None

    def tell(self) -> None:
        """Wake all viewers."""
        news, self.news = self.news, asyncio.Event()
        news.set()


class Watching:
    """The watched jobs of one event loop: one subscription, and one reader for each job."""

    def __init__(
        self,
        client: Client,
        keys: Keys,
        offset: ClockOffset,
        *,
        jobs: Jobs,
        waiting: Waiting,
        signing: Signing,
    ) -> None:
        self._client = client
        self._keys = (keys.jobs,)
        self._offset = offset
        self._jobs = jobs
        self._waiting = waiting
        self._signing = signing
        self._script = script("watch")
        self._channel = new_id()
        self._topic = keys.watch_channel + self._channel
        self._watched: dict[str, _Watched] = {}
        self._subscribed = False

    async def watch(self, job_id: str) -> AsyncGenerator[JobInfo, None]:
        """Yield the job now and after each change, until it has ended or is gone.

        Its result and its earlier attempts are those of the first read. Raises `ServerError`.
        """
        watched = self._watched.setdefault(job_id, _Watched())
        watched.viewers += 1
        if watched.following is None:
            watched.following = asyncio.create_task(self._follow(job_id, watched))
        shown: JobInfo | None = None
        try:
            while True:
                news, over = watched.news, watched.following.done()
                if watched.info is not None and watched.info != shown:
                    shown = watched.info
                    yield shown
                elif watched.error is not None:
                    raise watched.error
                elif over:
                    return
                else:
                    await news.wait()
        finally:
            watched.viewers -= 1
            if not watched.viewers:
                watched.following.cancel()
                self._forget(job_id, watched)

    async def _follow(self, job_id: str, watched: _Watched) -> None:
        """Read the job whenever it may have changed, until it has ended."""

        def ended(over: asyncio.Future[Ending]) -> None:
            # The next read reports the error, if it persists.
            _ = over.cancelled() or over.exception()
            watched.moved.set()

        over = asyncio.ensure_future(self._waiting.until_over(job_id))
        over.add_done_callback(ended)
        try:
            await self._listen()
            info = await self._jobs.info(job_id)
            # Read again at once, which stores our channel in the job.
            watched.moved.set()
            while info is not None:
                if info != watched.info:
                    watched.info = info
                    watched.tell()
                if info.state.finished:
                    break
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(watched.moved.wait(), LOOK_SECONDS)
                watched.moved.clear()
                info = await self._again(info)
                await asyncio.sleep(PAUSE_SECONDS)
        except Exception as error:
            watched.error = error
        finally:
            over.cancel()
            # A viewer that comes later starts a new reader.
            self._forget(job_id, watched)
            asyncio.get_running_loop().call_soon(watched.tell)

    async def _again(self, known: JobInfo) -> JobInfo | None:
        async def once(_: bool) -> list[Any]:
            return await self._client.script(
                self._script, self._keys, self._offset.ms, self._channel, known.id, *CHANGING_FIELDS
            )

        now, values = await retrying(
            once, seconds=CALL_SECONDS, what="the progress of a job could not be read"
        )
        return updated(known, values, self._signing, now)

    async def _listen(self) -> None:
        if not self._subscribed:
            self._subscribed = True
            await self._client.subscribe(self._topic, self._on_message)

    def _on_message(self, message: bytes) -> None:
        watched = self._watched.get(message.decode())
        if watched is not None:
            watched.moved.set()

    def _forget(self, job_id: str, watched: _Watched) -> None:
        if self._watched.get(job_id) is watched:
            del self._watched[job_id]
