"""Many jobs at once: all calls are checked first, then sent while the next ones are made ready."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Sequence
from typing import Final, TypeVar

from taskq.execution.handle import Job
from taskq.execution.ports import Desk
from taskq.execution.request import Request
from taskq.execution.task import Signature

__all__ = ["enqueue_all"]

CHUNK: Final = 500
"""As many as travel in one batch."""

R = TypeVar("R")


async def enqueue_all(desk: Desk, signatures: Sequence[Signature[R]]) -> list[Job[R]]:
    """Enqueue jobs in few round trips; their handles, in order.

    A call that cannot be made is refused before anything is sent; what middleware refuses is known
    only then.
    """
    if any(signature.callee.middleware.enqueues for signature in signatures):
        return await asyncio.gather(*(signature.enqueue() for signature in signatures))
    envelopes = [signature.envelope() for signature in signatures]
    requests: list[Request] = []
    sent: list[Awaitable[list[bool]]] = []
    for at in range(0, len(signatures), CHUNK):
        chunk = [
            Request.around(signature.callee, signature.job_options, envelope)
            for signature, envelope in zip(
                signatures[at : at + CHUNK], envelopes[at : at + CHUNK], strict=True
            )
        ]
        requests += chunk
        sent.append(desk.submit([request.job for request in chunk]))
        # It goes out now; the server does it while the next chunk is made.
        await asyncio.sleep(0)
    answers = await asyncio.gather(*sent)
    created = (new for answer in answers for new in answer)
    return [
        request.handle(desk, signature.callee, new)
        for request, signature, new in zip(requests, signatures, created, strict=True)
    ]
